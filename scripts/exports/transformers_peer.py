"""transformers beside ours: loads a model folder with its processor, goes on greedily behind a prompt, writes logits.

transformers_peer.py MODEL FEATURES MELS FRAMES STEPS LOGITS ID...: prints the ids that it chose.
"""
import sys

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

folder, features, mels, frames, steps, out, *prompt = sys.argv[1:]
torch.set_num_threads(1)
processor = WhisperProcessor.from_pretrained(folder)
assert processor.tokenizer.decode(processor.tokenizer("Hola, món!", add_special_tokens=False).input_ids) == "Hola, món!"
assert processor.feature_extractor.feature_size == int(mels)
model, info = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
model.eval()
inputs = torch.from_numpy(np.fromfile(features, np.float32).reshape(1, int(mels), int(frames)))
ids = [int(word) for word in prompt]
rows = []
with torch.no_grad():
    memory = model.model.encoder(inputs)
    for _ in range(int(steps)):
        logits = model(decoder_input_ids=torch.tensor([ids]), encoder_outputs=memory).logits[0, -1]
        rows.append(logits.numpy())
        ids.append(int(logits.argmax()))
np.stack(rows).astype(np.float32).tofile(out)
print(*ids[len(prompt):])
