#include "core/timeline.h"

#include <charconv>
#include <cmath>
#include <string>

#include "core/ops.h"

namespace dw {

namespace {

void put(std::string& text, int64_t n) {
  char digits[24];
  text.append(digits, std::to_chars(digits, digits + sizeof digits, n).ptr);
}

// n · 10^-places
void put_decimal(std::string& text, int64_t n, int places) {
  int64_t unit = 1;
  for (int i = 0; i < places; i++) unit *= 10;
  if (n < 0) text += '-', n = -n;
  put(text, n / unit);
  text += '.';
  for (unit /= 10; unit > 0; unit /= 10) text += char('0' + n / unit % 10);
}

// Operations, or bytes, in a nanosecond are 1e9 in a second.
void put_rate(std::string& text, double n, int64_t ns) {
  put_decimal(text, ns > 0 ? std::llround(100 * n / double(ns)) : 0, 2);
}

const char* name_of(int op) {
  return op == kRead ? "read" : op == kWrite ? "write" : op == kReplay ? "graph" : kOps[op].name;
}

const char* name_of(Part part) {
  static const char* const names[kParts] = {"", "teacher", "forward", "backward", "optimiser"};
  return names[int(part)];
}

const char* category(const Record& record) {
  if (record.launch) return record.op == kRead ? "waiting for the device" : "launching";
  return record.op == kRead || record.op == kWrite ? "transfer" : "kernel";
}

}  // namespace

void put_event(std::string& text, const Record& record, const Lane& lane) {
  const Work& work = record.work;
  const int64_t ns = record.end - record.begin;
  text += "{\"ph\":\"X\",\"pid\":1,\"tid\":";
  put(text, record.launch ? lane.launches : lane.number);
  text += ",\"ts\":";
  put_decimal(text, record.begin - lane.origin, 3);
  text += ",\"dur\":";
  put_decimal(text, ns, 3);
  text += ",\"cat\":\"";
  text += category(record);
  text += "\",\"name\":\"";
  text += name_of(record.op);
  text += "\",\"args\":{\"shape\":\"";
  for (int d = 0; d < work.rank; d++) {
    if (d > 0) text += "×";
    put(text, work.shape[d]);
  }
  text += "\",\"type\":\"";
  text += name_of(work.type);
  if (record.part != Part::none) {
    text += "\",\"part\":\"";
    text += name_of(record.part);
  }
  if (record.launch) {
    text += "\"}}";
    return;
  }
  text += "\",\"flop\":";
  put(text, std::llround(work.flop));
  text += ",\"bytes\":";
  put(text, std::llround(work.bytes));
  text += ",\"GFLOP/s\":";
  put_rate(text, work.flop, ns);
  text += ",\"GB/s\":";
  put_rate(text, work.bytes, ns);
  text += "}}";
}

}  // namespace dw
