#include "runtime/trap.h"

#include <cstring>

#include "core/error.h"
#include "kernels.h"

namespace dw {
namespace cuda {

void throw_trap(TrapRecord& record) {
  if (!record.set) return;
  const TrapRecord r = record;
  record.set = 0;
  const std::string op = op_name(r.op), got = std::to_string(r.value), at = std::to_string(r.index);
  const std::string ids = "expected ids from 0 to " + std::to_string(r.limit - 1) + ", got " + got;
  switch (r.kind) {
    case TrapKind::ids:
      throw Error("ERR_ARGUMENT", op + ": argument 'ids': " + ids + " at element " + at);
    case TrapKind::suppress:
      throw Error("ERR_ARGUMENT", op + ": argument 'suppress': " + ids);
    case TrapKind::allowed:
      throw Error("ERR_ARGUMENT", op + ": argument 'allowed': expected bounds of two ranges in order, from 0 to " +
                                      std::to_string(r.limit) + ", got " + got + " at element " + at);
    case TrapKind::samples: {
      const uint32_t bits = uint32_t(r.value);
      float sample;
      std::memcpy(&sample, &bits, 4);
      throw Error("ERR_AUDIO_SAMPLES",
                  op + ": argument 'samples': expected finite samples, nominally from -1 to 1, got " +
                      std::to_string(sample) + " at index " + at);
    }
    case TrapKind::labels:
      throw Error("ERR_ARGUMENT", op + ": argument 'labels': expected token ids below " + std::to_string(r.limit) +
                                      " or -100, got " + got + " in row " + at);
    case TrapKind::position:
      throw Error("ERR_ARGUMENT", op + ": argument 'position': expected a number from 0 to " +
                                      std::to_string(r.limit - 1) + ", got " + got);
    case TrapKind::parents:
      throw Error("ERR_ARGUMENT", op + ": argument 'parents': expected beams from 0 to " + std::to_string(r.limit - 1) +
                                      ", got " + got + " at element " + at);
    case TrapKind::logits:
      throw Error("ERR_KERNEL", op + ": argument 'logits': expected numbers or -inf, got NaN or +inf in row " + at);
  }
}

}  // namespace cuda
}  // namespace dw
