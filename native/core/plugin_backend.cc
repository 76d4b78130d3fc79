#include "core/plugin_backend.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "core/ops.h"
#include "core/timeline.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace dw {

namespace {

// The codes that plugins use, as the strings that Error keeps.
const char* known_code(const char* code) {
  for (const char* known :
       {"ERR_ARGUMENT", "ERR_AUDIO_SAMPLES", "ERR_CUDA", "ERR_DTYPE", "ERR_KERNEL", "ERR_OUT_OF_MEMORY", "ERR_SHAPE"})
    if (std::strcmp(code, known) == 0) return known;
  return "ERR_KERNEL";
}

[[noreturn]] void raise(const dw_fault& fault) { throw Error(known_code(fault.code), fault.message); }

void check(int failed, const dw_fault& fault) {
  if (failed) raise(fault);
}

class PluginMemory : public Memory {
 public:
  PluginMemory(const dw_plugin* plugin, int index) : plugin_(plugin) {
    dw_fault fault = {};
    check(plugin->device_open(index, &device_, &fault), fault);
    dw_memory_info info = {};
    if (plugin->device_memory(device_, &info, &fault)) {
      plugin->device_close(device_);
      raise(fault);
    }
    // Large, so that a step needs few: what does not fit in the rest of a chunk begins another.
    chunk_ = std::max<int64_t>(int64_t(64) << 20, info.total / 64);
  }
  ~PluginMemory() override { plugin_->device_close(device_); }

  void* allocate(int64_t bytes) override {
    void* block = nullptr;
    dw_fault fault = {};
    check(plugin_->allocate(device_, bytes, &block, &fault), fault);
    return block;
  }
  void deallocate(void* block) override { plugin_->deallocate(device_, block); }
  void write(void* to, const void* from, int64_t bytes) override {
    dw_fault fault = {};
    check(plugin_->write(device_, to, from, bytes, &fault), fault);
  }
  int64_t chunk() const override { return chunk_; }
  dw_device* device() const { return device_; }
  const dw_plugin* plugin() const { return plugin_; }

 private:
  const dw_plugin* const plugin_;
  dw_device* device_ = nullptr;
  int64_t chunk_ = 0;
};

// Streams on one device share its memory, so that they can share frozen tensors.
std::shared_ptr<PluginMemory> open_memory(const dw_plugin* plugin, int index) {
  static std::mutex mutex;
  static std::map<std::pair<const dw_plugin*, int>, std::weak_ptr<PluginMemory>> open;
  std::lock_guard<std::mutex> lock(mutex);
  std::weak_ptr<PluginMemory>& known = open[{plugin, index}];
  std::shared_ptr<PluginMemory> memory = known.lock();
  if (!memory) known = memory = std::make_shared<PluginMemory>(plugin, index);
  return memory;
}

using Done = std::function<void(Fault)>;
void tell(void* note, const dw_fault* fault) {
  const std::unique_ptr<Done> done(static_cast<Done*>(note));
  (*done)(fault ? Fault{known_code(fault->code), fault->message} : Fault());
}

void add_record(void* timeline, const void* note, int64_t begin, int64_t end) {
  Record record;
  std::memcpy(&record, note, sizeof record);
  record.begin = begin;
  record.end = end;
  static_cast<Timeline*>(timeline)->add(record);
}

class PluginBackend : public Backend {
 public:
  PluginBackend(const dw_plugin* plugin, int index)
      : plugin_(plugin), device_(open_memory(plugin, index)), memory_(device_), name_("cuda:" + std::to_string(index)) {
    dw_fault fault = {};
    check(plugin->queue_open(device_->device(), &queue_, &fault), fault);
  }
  ~PluginBackend() override { plugin_->queue_close(queue_); }

  const std::string& name() const override { return name_; }
  const std::shared_ptr<Memory>& memory() const override { return memory_; }

  void require(int op, unsigned types) const override {
    dw_fault reason = {};
    if (plugin_->device_lost(device_->device(), &reason))
      throw Error("ERR_CUDA",
                  name_ + " was lost by an earlier error, and this process cannot use it again: " + reason.message);
    const std::string what = op < 0 ? "" : kOps[op].name + std::string(": ");
    if (types & kF64) throw Error("ERR_DTYPE", what + "f64 is for the reference backend only");
    if (types & kQ8) throw Error("ERR_DTYPE", what + "q8 is for the processor only, got a tensor of it on " + name_);
    if (op >= 0 && !plugin_->op_present[op])
      throw Error("ERR_CUDA", what + "this plugin has no such kernel for " + name_);
  }

  void run(int op, const Call& call) override {
    const dw_call c = described(call, tensors_);
    dw_fault fault = {};
    check(plugin_->run(queue_, op, &c, &fault), fault);
  }
  void replay(Recording& recording) override {
    if (!plugin_->capture) return Backend::replay(recording);
    dw_fault fault = {};
    if (recording.graph) {
      auto* graph = static_cast<Graph*>(recording.graph.get());
      return check(plugin_->launch(queue_, graph->graph, &fault), fault);
    }
    std::vector<std::vector<dw_tensor>> tensors(recording.steps.size());
    std::vector<int32_t> ops;
    std::vector<dw_call> calls;
    for (const Recording::Step& step : recording.steps) {
      calls.push_back(described(*step.call, tensors[ops.size()]));
      ops.push_back(step.op);
    }
    auto made = std::make_shared<Graph>(device_);
    check(plugin_->capture(queue_, ops.data(), calls.data(), int32_t(ops.size()), &made->graph, &fault), fault);
    recording.graph = std::move(made);
  }
  int graph_span() const override { return plugin_->capture ? plugin_->graph_span : 0; }
  void upload(void* to, const void* from, int64_t bytes) override {
    dw_fault fault = {};
    check(plugin_->upload(queue_, to, from, bytes, &fault), fault);
  }
  void download(void* to, const void* from, int64_t bytes) override {
    require(-1, false);
    dw_fault fault = {};
    check(plugin_->download(queue_, to, from, bytes, &fault), fault);
  }
  void read(void* to, const void* from, int64_t bytes, Done done) override {
    if (!plugin_->read) return Backend::read(to, from, bytes, std::move(done));
    require(-1, false);
    auto note = std::make_unique<Done>(std::move(done));
    dw_fault fault = {};
    check(plugin_->read(queue_, to, from, bytes, tell, note.get(), &fault), fault);
    note.release();
  }
  void synchronize() override {
    require(-1, false);
    dw_fault fault = {};
    check(plugin_->synchronize(queue_, &fault), fault);
  }
  void time_next(Timeline& timeline, const Record& record) override {
    static_assert(sizeof record <= DW_NOTE_BYTES, "a record travels as a note");
    unsigned char note[DW_NOTE_BYTES] = {};
    std::memcpy(note, &record, sizeof record);
    plugin_->time_next(queue_, add_record, &timeline, note);
  }
  void end_times() override { plugin_->end_times(queue_); }

 private:
  // May outlive its queue, not the device's memory.
  struct Graph {
    explicit Graph(std::shared_ptr<PluginMemory> m) : memory(std::move(m)) {}
    ~Graph() {
      if (graph) memory->plugin()->graph_close(graph);
    }
    const std::shared_ptr<PluginMemory> memory;
    dw_graph* graph = nullptr;
  };

  // The call as the plugin takes it, on `tensors`, which it fills.
  static dw_call described(const Call& call, std::vector<dw_tensor>& tensors) {
    tensors.clear();
    const auto add = [&](const View& v, bool frozen) {
      dw_tensor t = {};
      t.data = v.data;
      std::memcpy(t.shape, v.shape, sizeof t.shape);
      t.dtype = int32_t(v.dtype);
      t.rank = v.rank;
      t.present = bool(v);
      t.frozen = frozen;
      tensors.push_back(t);
    };
    for (size_t i = 0; i < call.in.size(); i++) add(call.in[i], call.storage[i] && call.storage[i]->frozen);
    for (const View& v : call.out) add(v, false);
    return {tensors.data(),          tensors.data() + call.in.size(), call.num.data(),
            int32_t(call.in.size()), int32_t(call.out.size()),        int32_t(call.num.size())};
  }

  const dw_plugin* const plugin_;
  const std::shared_ptr<PluginMemory> device_;
  const std::shared_ptr<Memory> memory_;
  const std::string name_;
  dw_queue* queue_ = nullptr;
  std::vector<dw_tensor> tensors_;
};

void check_table(const dw_plugin* plugin, const std::string& path) {
  if (!plugin) throw Error("ERR_CUDA_PLUGIN", "'" + path + "' returned no table of functions");
  if (plugin->abi != DW_PLUGIN_ABI)
    throw Error("ERR_CUDA_PLUGIN", "'" + path + "' is a plugin of another version: expected interface " +
                                       std::to_string(DW_PLUGIN_ABI) + ", got " + std::to_string(plugin->abi) +
                                       "; install @distilwhisper/cuda-linux-x64 in the version of this package");
  bool same = plugin->op_count == uint32_t(kOpCount);
  for (int i = 0; same && i < kOpCount; i++) same = std::strcmp(plugin->op_names[i], kOps[i].name) == 0;
  if (!same)
    throw Error("ERR_CUDA_PLUGIN",
                "'" + path +
                    "' is a plugin of another version: its list of operations is not this package's; "
                    "install @distilwhisper/cuda-linux-x64 in the version of this package");
}

}  // namespace

const dw_plugin* load_plugin(const std::string& path) {
#if defined(_WIN32)
  throw Error("ERR_CUDA_PLUGIN", "'" + path + "': plugins are loaded on Linux only");
#else
  static std::mutex mutex;
  static std::map<std::string, const dw_plugin*> loaded;
  std::lock_guard<std::mutex> lock(mutex);
  const dw_plugin*& plugin = loaded[path];
  if (plugin) return plugin;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    throw Error("ERR_CUDA_PLUGIN",
                "'" + path + "' does not load as a shared object: " + (why ? why : "unknown reason"));
  }
  const auto entry = reinterpret_cast<dw_plugin_entry>(dlsym(library, DW_PLUGIN_ENTRY));
  if (!entry) {
    dlclose(library);
    throw Error(
        "ERR_CUDA_PLUGIN",
        "'" + path + "' is a shared object, but no plugin of distilwhisper: it has no function " DW_PLUGIN_ENTRY);
  }
  const dw_plugin* table = entry();
  check_table(table, path);
  return plugin = table;
#endif
}

std::unique_ptr<Backend> make_plugin_backend(const dw_plugin* plugin, int device) {
  return std::make_unique<PluginBackend>(plugin, device);
}

bool device_memory(const Memory& memory, dw_memory_info* info) {
  const auto* device = dynamic_cast<const PluginMemory*>(&memory);
  if (!device) return false;
  dw_fault fault = {};
  check(device->plugin()->device_memory(device->device(), info, &fault), fault);
  return true;
}

}  // namespace dw
