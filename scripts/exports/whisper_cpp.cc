// whisper.cpp beside ours: reads a ggml file and features, goes on greedily behind a prompt, writes every step's logits.
// whisper_cpp MODEL FEATURES MELS FRAMES STEPS LOGITS ID…: prints the ids that it chose.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "whisper.h"

int main(int argc, char **argv) {
  if (argc < 8) return 2;
  const int mels = std::atoi(argv[3]), frames = std::atoi(argv[4]), steps = std::atoi(argv[5]);
  std::vector<float> features(static_cast<size_t>(mels) * frames);
  FILE *file = std::fopen(argv[2], "rb");
  if (!file || std::fread(features.data(), 4, features.size(), file) != features.size()) return 3;
  std::fclose(file);
  whisper_context_params params = whisper_context_default_params();
  params.use_gpu = false;
  params.flash_attn = false;
  whisper_context *context = whisper_init_from_file_with_params(argv[1], params);
  if (!context || whisper_set_mel(context, features.data(), frames, mels) != 0) return 4;
  if (whisper_encode(context, 0, 1) != 0) return 5;
  std::vector<whisper_token> next;
  for (int i = 7; i < argc; i++) next.push_back(std::atoi(argv[i]));
  const int vocabulary = whisper_n_vocab(context);
  FILE *out = std::fopen(argv[6], "wb");
  int past = 0;
  for (int step = 0; step < steps; step++) {
    const int count = static_cast<int>(next.size());
    if (whisper_decode(context, next.data(), count, past, 1) != 0) return 6;
    past += count;
    const float *logits = whisper_get_logits(context) + static_cast<size_t>(count - 1) * vocabulary;
    std::fwrite(logits, 4, vocabulary, out);
    const whisper_token best = static_cast<whisper_token>(std::max_element(logits, logits + vocabulary) - logits);
    std::printf("%d ", best);
    next.assign(1, best);
  }
  std::fclose(out);
  whisper_free(context);
  return 0;
}
