/* A plugin whose device is the memory of the process: what the addon does with a plugin can then be tested anywhere. It
 * has one kernel, fill, for f32. Filling with 7 leaves a fault for the next wait, with 13 the device is lost. A call that
 * is timed is told at once: 2 µs, from its begin. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/op_names.h"
#include "core/plugin.h"

struct dw_device {
  int32_t lost;
  int64_t held, peak;
};
struct dw_queue {
  dw_device* device;
  int32_t fault;
  dw_ran ran;
  void* to;
  unsigned char note[DW_NOTE_BYTES];
};

#define NAME(name, arguments) #name,
static const char* const names[] = {DW_OPS(NAME)};
#define COUNT (sizeof names / sizeof names[0])
static uint8_t present[COUNT];

static int fail(dw_fault* fault, const char* code, const char* message) {
  snprintf(fault->code, sizeof fault->code, "%s", code);
  snprintf(fault->message, sizeof fault->message, "%s", message);
  return 1;
}
static void report(dw_report* r) {
  memset(r, 0, sizeof *r);
  r->driver_version = 13010;
  r->runtime_version = 13000;
  snprintf(r->gemm_library, sizeof r->gemm_library, "no products here");
}
static int device_count(int32_t* count, dw_fault* fault) {
  (void)fault;
  *count = 2;
  return 0;
}
static int device_describe(int32_t index, dw_device_info* info, dw_fault* fault) {
  if (index == 1) return fail(fault, "ERR_CUDA", "the second one is broken");
  snprintf(info->name, sizeof info->name, "the memory of the process");
  info->major = 9;
  info->usable = 1;
  info->memory_bytes = 1 << 30;
  return 0;
}
static int device_open(int32_t index, dw_device** device, dw_fault* fault) {
  if (index > 1) return fail(fault, "ERR_CUDA", "no such device");
  *device = calloc(1, sizeof **device);
  return 0;
}
static void device_close(dw_device* device) { free(device); }
static int device_lost(const dw_device* device, dw_fault* reason) {
  return device->lost ? fail(reason, "ERR_CUDA", "fill with 13") : 0;
}
static int device_memory(dw_device* device, dw_memory_info* info, dw_fault* fault) {
  (void)fault;
  const dw_memory_info m = {1 << 30, (1 << 30) - device->held, device->held, device->peak};
  *info = m;
  return 0;
}
/* A block knows its size, so that what is held can be counted. */
static int allocate(dw_device* device, int64_t bytes, void** block, dw_fault* fault) {
  if (bytes > 1 << 30) return fail(fault, "ERR_OUT_OF_MEMORY", "the device is full");
  int64_t* memory = aligned_alloc(64, (size_t)(bytes + 127) / 64 * 64);
  memory[0] = bytes;
  device->held += bytes;
  if (device->held > device->peak) device->peak = device->held;
  *block = memory + 8;
  return 0;
}
static void deallocate(dw_device* device, void* block) {
  int64_t* memory = (int64_t*)block - 8;
  device->held -= memory[0];
  free(memory);
}
static int write_block(dw_device* device, void* to, const void* from, int64_t bytes, dw_fault* fault) {
  (void)device, (void)fault;
  memcpy(to, from, (size_t)bytes);
  return 0;
}
static int queue_open(dw_device* device, dw_queue** queue, dw_fault* fault) {
  (void)fault;
  *queue = calloc(1, sizeof **queue);
  (*queue)->device = device;
  return 0;
}
static void queue_close(dw_queue* queue) { free(queue); }
static void time_next(dw_queue* queue, dw_ran ran, void* to, const void* note) {
  queue->ran = ran;
  queue->to = to;
  memcpy(queue->note, note, sizeof queue->note);
}
static void end_times(dw_queue* queue) { queue->ran = NULL; }
static void tell(dw_queue* queue) {
  struct timespec now;
  if (!queue->ran) return;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
  queue->ran(queue->to, queue->note, ns, ns + 2000);
  queue->ran = NULL;
}
static int run(dw_queue* queue, int32_t op, const dw_call* call, dw_fault* fault) {
  if (strcmp(names[op], "fill") || call->in_count != 1 || call->out_count || call->num_count != 1 || call->in[0].dtype)
    return fail(fault, "ERR_KERNEL", "not a call of fill");
  int64_t n = 1;
  for (int32_t d = 0; d < call->in[0].rank; d++) n *= call->in[0].shape[d];
  for (int64_t i = 0; i < n; i++) ((float*)call->in[0].data)[i] = (float)call->num[0];
  tell(queue);
  if (call->num[0] == 7) queue->fault = 1;
  if (call->num[0] == 13) {
    queue->device->lost = 1;
    return fail(fault, "ERR_CUDA", "an illegal address");
  }
  return 0;
}
static int synchronize(dw_queue* queue, dw_fault* fault) {
  const int32_t found = queue->fault;
  queue->fault = 0;
  return found ? fail(fault, "ERR_ARGUMENT", "fill: argument 'value': expected another number, got 7") : 0;
}
static int upload(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_fault* fault) {
  (void)fault;
  tell(queue);
  memcpy(to, from, (size_t)bytes);
  return 0;
}
static int download(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_fault* fault) {
  tell(queue);
  memcpy(to, from, (size_t)bytes);
  return synchronize(queue, fault);
}

static const dw_plugin plugin = {DW_PLUGIN_ABI, COUNT,           names,       present,      "any",       report,
                                 device_count,  device_describe, device_open, device_close, device_lost, device_memory,
                                 allocate,      deallocate,      write_block, queue_open,   queue_close, run,
                                 upload,        download,        synchronize, time_next,    end_times};

const dw_plugin* distilwhisper_plugin(void) {
  for (size_t i = 0; i < COUNT; i++) present[i] = strcmp(names[i], "fill") == 0;
  return &plugin;
}
