// When the calls of a stream ran: a ring of fixed size that the stream's worker fills and the JavaScript thread
// empties. A record that finds it full is counted and lost, so that a profile never makes a stream wait.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/backend.h"
#include "core/clock.h"
#include "core/work.h"

namespace dw {

// The parts of a training step that a profile tells apart.
enum class Part : uint8_t { none = 0, teacher = 1, forward = 2, backward = 3, optimiser = 4 };
constexpr int kParts = 5;

struct Record {
  int op;       // its number in DW_OPS, or one of Other
  bool launch;  // the times are those of handing it to a device; the device's own are another record's
  Part part;    // that it was queued in
  int64_t begin, end;
  Work work;
};

// What a stream does besides operations.
enum Other : int { kRead = -1, kWrite = -2, kReplay = -3 };  // a replay is many operations at once

// A stream's place in a trace.
struct Lane {
  int64_t number;
  int64_t launches;  // the lane of records that are launches
  int64_t origin;    // the clock when the trace began
};

// Appends a record as one of Chrome's trace events, which are JSON; with a separator less than kEventBytes.
constexpr size_t kEventBytes = 1024;
void put_event(std::string& text, const Record& record, const Lane& lane);

class Timeline {
 public:
  static constexpr uint64_t kRecords = 1 << 16;  // 5 MB; at 100,000 calls a second it is full in 0.6 s

  // The worker.
  void add(const Record& record) {
    const uint64_t at = end_.load(std::memory_order_relaxed);
    if (at - begin_.load(std::memory_order_acquire) == kRecords) {
      lost_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    records_[at % kRecords] = record;
    end_.store(at + 1, std::memory_order_release);
  }
  // The JavaScript thread: the oldest record, or false when there is none.
  bool take(Record& record) {
    const uint64_t at = begin_.load(std::memory_order_relaxed);
    if (at == end_.load(std::memory_order_acquire)) return false;
    record = records_[at % kRecords];
    begin_.store(at + 1, std::memory_order_release);
    return true;
  }
  // The JavaScript thread: forgets what is there.
  void clear() {
    begin_.store(end_.load(std::memory_order_acquire), std::memory_order_release);
    lost_.store(0, std::memory_order_relaxed);
  }
  // How full it is, from 0 to 1.
  double level() const {
    return double(end_.load(std::memory_order_relaxed) - begin_.load(std::memory_order_relaxed)) / double(kRecords);
  }
  uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }

  // Whether calls are timed on their device too. The JavaScript thread sets it, the worker asks.
  std::atomic<bool> device_times{false};

 private:
  std::unique_ptr<Record[]> records_{new Record[kRecords]};
  std::atomic<uint64_t> begin_{0}, end_{0}, lost_{0};
};

// Where a call's record goes, if anywhere, and the part that it belongs to.
struct Timing {
  Timeline* timeline = nullptr;
  Part part = Part::none;
};

// Runs a job of the stream's worker, which is one call of its backend; without a timeline nothing is measured. `work`
// is asked when the job is done, or before where it does not look at values: on a device.
template <class Job, class WorkOf>
void timed(Timing timing, Backend& backend, int op, const Job& job, const WorkOf& work) {
  if (!timing.timeline) return job();
  Record record = {op, false, timing.part, clock_ns(), 0, {}};
  if (timing.timeline->device_times.load(std::memory_order_relaxed)) {
    record.work = work();
    backend.time_next(*timing.timeline, record);
    record.launch = true;
  }
  job();
  record.end = clock_ns();
  if (!record.launch) record.work = work();
  timing.timeline->add(record);
}

// Of an upload or a download.
inline Work moved(const View& v) {
  Work w;
  w.bytes = double(v.bytes());
  w.type = v.dtype;
  w.rank = v.rank;
  for (int d = 0; d < v.rank; d++) w.shape[d] = v.shape[d];
  return w;
}

}  // namespace dw
