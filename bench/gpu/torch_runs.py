"""Runs a PyTorch bench script many times in one process, so that torch is imported and CUDA begun once.

  torch_runs.py SCRIPT DEVICE    a line of standard input is a JSON list: the arguments of one run of the script's main();
                                 the answer is the line of JSON that the run prints, or {"error": "..."}
"""
import contextlib
import gc
import importlib.util
import io
import json
import sys

import torch


def load(path, device):
    spec = importlib.util.spec_from_file_location("peer", path)
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    # Weights are drawn where they will be: for a large model seconds instead of a minute, and nothing that is timed.
    if hasattr(peer, "Whisper") and hasattr(torch.device, "__enter__"):
        make = peer.Whisper.__init__

        def make_there(self, *args, **named):
            with torch.device(device):
                make(self, *args, **named)

        peer.Whisper.__init__ = make_there
    return peer


def answer(peer, path, args):
    printed = io.StringIO()
    sys.argv = [path, *args]
    try:
        with contextlib.redirect_stdout(printed):
            peer.main()
        return printed.getvalue().strip().splitlines()[-1]
    except (Exception, SystemExit) as error:
        said = str(error).strip().splitlines()
        return json.dumps({"error": f"{type(error).__name__}: {said[0] if said else ''}"})


def main():
    path, device = sys.argv[1:3]
    peer = load(path, device)
    for line in sys.stdin:
        print(answer(peer, path, json.loads(line)), flush=True)
        # The next run begins as in a process of its own.
        if hasattr(torch, "_dynamo"):
            torch._dynamo.reset()
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
