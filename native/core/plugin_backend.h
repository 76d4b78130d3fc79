// The device behind a plugin as a Backend. Plugins are loaded once in a process and stay.
#pragma once
#include <memory>
#include <string>

#include "core/backend.h"
#include "core/plugin.h"

namespace dw {

// Throws Error(ERR_CUDA_PLUGIN) when `path` is no shared object, no plugin, or a plugin of another version.
const dw_plugin* load_plugin(const std::string& path);

// Throws Error(ERR_CUDA): no driver, no such device, not one this plugin has kernels for.
std::unique_ptr<Backend> make_plugin_backend(const dw_plugin* plugin, int device);

// Of the device that a memory belongs to; false for the memory of the process.
bool device_memory(const Memory& memory, dw_memory_info* info);

}  // namespace dw
