"""peft beside ours: loads an adapter onto its model, apart and merged, and writes logits of one pass; then saves it anew.

peft_peer.py MODEL ADAPTER FEATURES MELS FRAMES LOGITS SAVED ID...
"""
import sys

import numpy as np
import torch
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

folder, adapter, features, mels, frames, out, saved, *ids = sys.argv[1:]
torch.set_num_threads(1)
base = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
model = PeftModel.from_pretrained(base, adapter).eval()
assert not model.load_adapter(adapter, "again").unexpected_keys
inputs = torch.from_numpy(np.fromfile(features, np.float32).reshape(1, int(mels), int(frames)))
said = {"input_features": inputs, "decoder_input_ids": torch.tensor([[int(word) for word in ids]])}
with torch.no_grad():
    apart = model(**said).logits[0]
    model.save_pretrained(saved, selected_adapters=["default"])
    merged = model.merge_and_unload()(**said).logits[0]
np.stack([apart.numpy(), merged.numpy()]).astype(np.float32).tofile(out)
