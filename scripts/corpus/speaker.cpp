// espeak-ng without a program start for every utterance.
//
// Reads lines "voice TAB pace TAB pitch TAB text" and answers each with a uint32 sample rate, a uint32 sample count and
// the samples (int16). The synthesiser keeps some state, so the sound depends on the lines before.
#include <espeak-ng/speak_lib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

static std::vector<int16_t> spoken;

static int collect(short* samples, int count, espeak_EVENT*) {
  if (samples != nullptr) spoken.insert(spoken.end(), samples, samples + count);
  return 0;
}

static std::string field(std::string& line) {
  const size_t tab = line.find('\t');
  const std::string head = line.substr(0, tab);
  line = tab == std::string::npos ? "" : line.substr(tab + 1);
  return head;
}

static void write_all(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = write(STDOUT_FILENO, at, bytes);
    if (done <= 0) _exit(4);
    at += done;
    bytes -= static_cast<size_t>(done);
  }
}

int main() {
  const int rate = espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, nullptr, 0);
  if (rate <= 0) return 1;
  espeak_SetSynthCallback(collect);
  std::string line;
  while (std::getline(std::cin, line)) {
    const std::string voice = field(line), pace = field(line), pitch = field(line);
    if (espeak_SetVoiceByName(voice.c_str()) != EE_OK) return 3;
    espeak_SetParameter(espeakRATE, std::atoi(pace.c_str()), 0);
    espeak_SetParameter(espeakPITCH, std::atoi(pitch.c_str()), 0);
    spoken.clear();
    espeak_Synth(line.c_str(), line.size() + 1, 0, POS_CHARACTER, 0, espeakCHARS_UTF8, nullptr, nullptr);
    espeak_Synchronize();
    const uint32_t header[2] = {static_cast<uint32_t>(rate), static_cast<uint32_t>(spoken.size())};
    write_all(header, sizeof header);
    write_all(spoken.data(), 2 * spoken.size());
  }
  return 0;
}
