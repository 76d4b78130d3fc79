/* The contract between the addon and the plugin of a device: plain C, so that the two may come from different
 * compilers.
 *
 * A plugin is a shared object that exports one function, DW_PLUGIN_ENTRY, of type dw_plugin_entry. It returns a table
 * that lives as long as the process. The addon refuses a table whose `abi` or list of operations is not its own.
 *
 * Every function that can fail returns 0, or 1 with `fault` filled: a code of lib/errors and a sentence for the user.
 * None throws, exits or aborts. The functions of a queue are called by one thread at a time, all others by any thread.
 */
#ifndef DISTILWHISPER_PLUGIN_H
#define DISTILWHISPER_PLUGIN_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DW_PLUGIN_ABI 6u /* changes with every change of this file, and of the tensors that an operation takes */
#define DW_PLUGIN_ENTRY "distilwhisper_plugin"

typedef struct dw_fault {
  char code[32];
  char message[992];
} dw_fault;

/* One tensor of a call: contiguous, C order, in the device's memory. */
typedef struct dw_tensor {
  void* data; /* may be null when the tensor is empty */
  int64_t shape[4];
  int32_t dtype; /* 0 f32, 1 bf16, 2 i32 */
  int32_t rank;
  int32_t present; /* 0: an optional tensor left out */
  int32_t frozen;  /* 1: never written again */
} dw_tensor;

/* A call that its operation has checked: tensors and numbers in the order that it declares (native/ops). Valid during `run`
 * only. */
typedef struct dw_call {
  const dw_tensor* in;
  const dw_tensor* out;
  const double* num;
  int32_t in_count, out_count, num_count;
} dw_call;

typedef struct dw_device_info {
  char name[128];
  int32_t major, minor; /* compute capability */
  int32_t processors;   /* streaming multiprocessors */
  int32_t usable;       /* 0: this plugin has no kernels for it */
  int64_t memory_bytes;
} dw_device_info;

/* What a user wants to know when something is missing. Versions as CUDA counts them (13000 is 13.0); 0: there is none.
 */
typedef struct dw_report {
  int32_t driver_version;   /* the newest CUDA that the driver runs */
  int32_t runtime_version;  /* the CUDA that this plugin was built with */
  int32_t gemm_version;     /* as cuBLASLt counts it (130001), 0: not found */
  char driver_message[512]; /* why there is no usable driver, or "" */
  char gemm_library[1024];  /* path, or where it was looked for */
} dw_report;

typedef struct dw_memory_info {
  int64_t total, available; /* of the device, all processes */
  int64_t held, held_peak;  /* by this process through this plugin */
} dw_memory_info;

/* When a call ran on the device, in nanoseconds of the steady clock. `to` and `note` are those of time_next. */
typedef void (*dw_ran)(void* to, const void* note, int64_t begin, int64_t end);
#define DW_NOTE_BYTES 96

/* Bytes have arrived, or, with a fault, have not. By any thread; it may not call the plugin. */
typedef void (*dw_done)(void* note, const dw_fault* fault);

typedef struct dw_device dw_device; /* a device's context and memory */
typedef struct dw_queue dw_queue;   /* calls in order, behind the caller */
typedef struct dw_graph dw_graph;   /* calls of a queue that run again as one */

typedef struct dw_plugin {
  uint32_t abi; /* DW_PLUGIN_ABI; this member and the next never move */
  uint32_t op_count;
  const char* const* op_names; /* DW_OPS in its order */
  const uint8_t* op_present;   /* 1: this plugin has the kernel */
  const char* architectures;   /* "sm_80, sm_90a, and later by PTX" */

  /* Answers without a driver too. */
  void (*report)(dw_report* report);
  int (*device_count)(int32_t* count, dw_fault* fault);
  int (*device_describe)(int32_t index, dw_device_info* info, dw_fault* fault);

  int (*device_open)(int32_t index, dw_device** device, dw_fault* fault);
  /* Its queues must be closed; what is still allocated goes too. */
  void (*device_close)(dw_device* device);
  /* 1, with the reason, after an error that the device's context does not survive: every later call is refused. */
  int (*device_lost)(const dw_device* device, dw_fault* reason);
  int (*device_memory)(dw_device* device, dw_memory_info* info, dw_fault* fault);
  int (*allocate)(dw_device* device, int64_t bytes, void** block, dw_fault* fault);
  /* The block is given out again when every queue has done what it has begun until now. */
  void (*deallocate)(dw_device* device, void* block);
  /* Fills a block that no queue knows yet, and waits. */
  int (*write)(dw_device* device, void* to, const void* from, int64_t bytes, dw_fault* fault);

  int (*queue_open)(dw_device* device, dw_queue** queue, dw_fault* fault);
  void (*queue_close)(dw_queue* queue); /* waits for what it has begun, and has told all reads */
  int (*run)(dw_queue* queue, int32_t op, const dw_call* call, dw_fault* fault);
  int (*upload)(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_fault* fault);
  /* These two wait; faults that kernels found in their data (an id out of range) come back here. */
  int (*download)(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_fault* fault);
  int (*synchronize)(dw_queue* queue, dw_fault* fault);

  /* The next run, upload, download, capture or launch is timed on the device, and `ran` is called when that is known:
   * in that call or a later one of this queue, at the latest in one that waits; in the order of the calls. One that
   * fails may have no time. The note, of DW_NOTE_BYTES, is copied. */
  void (*time_next)(dw_queue* queue, dw_ran ran, void* to, const void* note);
  /* No call is timed for now: times that are not known yet are forgotten, and what takes them is given back. */
  void (*end_times)(dw_queue* queue);

  /* Null, all three, where there are no graphs: calls are then run one by one. */
  /* Runs calls in order, and captures them as a graph that runs them again on the same tensors, which must stay where
   * they are until it is closed. When it fails there is no graph, and the queue is as after a `run` that fails. */
  int (*capture)(dw_queue* queue, const int32_t* ops, const dw_call* calls, int32_t count, dw_graph** graph,
                 dw_fault* fault);
  int (*launch)(dw_queue* queue, dw_graph* graph, dw_fault* fault); /* on the queue that captured it */
  void (*graph_close)(dw_graph* graph); /* by any thread; what has been launched still ends */
  /* Positions (native/ops/position.h) from one multiple of this to the next: for all of them one graph, captured with
   * the last as the most, gives the bits of calls. */
  int32_t graph_span;

  /* As download, of a few bytes, and returns at once: calls behind it go on. Where it fails nobody is told. Null: reads
   * wait. */
  int (*read)(dw_queue* queue, void* to, const void* from, int64_t bytes, dw_done done, void* note, dw_fault* fault);
} dw_plugin;

typedef const dw_plugin* (*dw_plugin_entry)(void);

#ifdef __cplusplus
}
#endif
#endif
