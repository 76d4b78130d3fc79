// CTranslate2 beside ours: reads a model folder and features, goes on greedily behind a prompt, writes every step's logits.
// ctranslate2 MODEL FEATURES MELS FRAMES STEPS LOGITS ID…: prints the ids that it chose.
#include <ctranslate2/models/whisper.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char **argv) {
  if (argc < 8) return 2;
  const int mels = std::atoi(argv[3]), frames = std::atoi(argv[4]), steps = std::atoi(argv[5]);
  std::vector<float> features(static_cast<size_t>(mels) * frames);
  FILE *file = std::fopen(argv[2], "rb");
  if (!file || std::fread(features.data(), 4, features.size(), file) != features.size()) return 3;
  std::fclose(file);
  using namespace ctranslate2;
  ReplicaPoolConfig pool;
  pool.num_threads_per_replica = 1;
  models::Whisper model(argv[1], Device::CPU, ComputeType::DEFAULT, {0}, false, pool);
  std::vector<size_t> prompt;
  for (int i = 7; i < argc; i++) prompt.push_back(std::atoi(argv[i]));
  models::WhisperOptions options;
  options.beam_size = 1;
  options.suppress_blank = false;
  options.suppress_tokens = {};
  options.return_logits_vocab = true;
  // It takes half of this, or what the prompt leaves of it.
  options.max_length = std::max<size_t>(2 * steps, steps + prompt.size());
  const StorageView input(Shape{1, mels, frames}, features);
  const auto result = model.generate(input, std::vector<std::vector<size_t>>{prompt}, options)[0].get();
  for (size_t id : result.sequences_ids[0]) std::printf("%zu ", id);
  FILE *out = std::fopen(argv[6], "wb");
  for (const StorageView &logits : result.logits[0]) {
    const StorageView host = logits.to_float32().to(Device::CPU);
    std::fwrite(host.data<float>(), 4, host.size(), out);
  }
  std::fclose(out);
  return 0;
}
