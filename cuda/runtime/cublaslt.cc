#include "runtime/cublaslt.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <sstream>
#include <vector>

namespace dw {
namespace cuda {

namespace {

const char* const kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Folders of pip and conda packages, and of toolkits, as patterns of glob(3).
std::vector<std::string> patterns() {
  std::vector<std::string> out, python;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string prefix = variable(name);
    if (prefix.empty()) continue;
    out.push_back(prefix + "/lib");
    out.push_back(prefix + "/targets/x86_64-linux/lib");
    python.push_back(prefix + "/lib/python3*/site-packages");
  }
  const std::string home = variable("HOME");
  if (!home.empty()) python.push_back(home + "/.local/lib/python3*/site-packages");
  for (const char* prefix : {"/usr/local/lib", "/usr/lib", "/opt/conda/lib", "/opt/venv/lib"})
    for (const char* packages : {"site-packages", "dist-packages"})
      python.push_back(std::string(prefix) + "/python3*/" + packages);
  python.push_back("/usr/lib/python3/dist-packages");
  for (const std::string& p : python)
    for (const char* package : {"/nvidia/cu13/lib", "/nvidia/cublas/lib"}) out.push_back(p + package);
  out.push_back("/opt/conda/lib");
  for (const char* p :
       {"/usr/local/cuda/lib64", "/usr/local/cuda-*/lib64", "/usr/local/cuda*/targets/x86_64-linux/lib"})
    out.push_back(p);
  return out;
}

struct Search {
  CublasLt found = {};
  bool ok = false;
  std::string problem;
  std::string last_error;

  bool open(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      // A library that is there and does not load says more than one that is not there.
      const char* why = dlerror();
      const std::string text = why ? why : "";
      if (text.find("No such file") == std::string::npos) last_error = text;
      return false;
    }
    bool whole = true;
    auto get = [&](auto& function, const char* name) {
      void* symbol = dlsym(library, name);
      if (!symbol) {
        whole = false;
        last_error = path + " has no function " + name;
      }
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
    };
    get(found.get_version, "cublasLtGetVersion");
    get(found.status_string, "cublasLtGetStatusString");
    get(found.create, "cublasLtCreate");
    get(found.destroy, "cublasLtDestroy");
    get(found.desc_create, "cublasLtMatmulDescCreate");
    get(found.desc_destroy, "cublasLtMatmulDescDestroy");
    get(found.desc_set, "cublasLtMatmulDescSetAttribute");
    get(found.layout_create, "cublasLtMatrixLayoutCreate");
    get(found.layout_destroy, "cublasLtMatrixLayoutDestroy");
    get(found.layout_set, "cublasLtMatrixLayoutSetAttribute");
    get(found.preference_create, "cublasLtMatmulPreferenceCreate");
    get(found.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    get(found.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    get(found.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    get(found.matmul, "cublasLtMatmul");
    if (!whole) {
      dlclose(library);
      return false;
    }
    Dl_info info;
    found.path = dladdr(reinterpret_cast<void*>(found.matmul), &info) && info.dli_fname ? info.dli_fname : path;
    found.version = found.get_version();
    return true;
  }

  bool open_in(const std::string& folder) {
    for (const char* name : kNames)
      if (open(folder + "/" + name)) return true;
    return false;
  }

  bool open_matching(const std::string& pattern) {
    glob_t matches = {};
    bool opened = false;
    if (glob(pattern.c_str(), 0, nullptr, &matches) == 0)
      for (size_t i = matches.gl_pathc; !opened && i-- > 0;) opened = open_in(matches.gl_pathv[i]);  // newest last
    globfree(&matches);
    return opened;
  }

  Search() {
    const std::string given = variable("DISTILWHISPER_CUDA_LIBS");
    if (!given.empty()) {
      std::stringstream folders(given);
      for (std::string folder; !ok && std::getline(folders, folder, ':');) ok = open_in(folder);
      if (!ok) problem = "no libcublasLt.so.13 or .12 in DISTILWHISPER_CUDA_LIBS=" + given;
    } else {
      for (const char* name : kNames) ok = ok || open(name);
      for (const std::string& p : patterns()) ok = ok || open_matching(p);
      if (!ok)
        problem =
            "cuBLASLt was not found (libcublasLt.so.13 or .12): not by the dynamic loader, in pip and conda installs "
            "or "
            "in /usr/local/cuda*; install it (for example: pip install nvidia-cublas) or set DISTILWHISPER_CUDA_LIBS "
            "to "
            "its folder";
    }
    if (!ok && !last_error.empty()) problem += " (" + last_error + ")";
  }
};

const Search& search() {
  static const Search s;
  return s;
}

}  // namespace

const CublasLt* cublaslt() { return search().ok ? &search().found : nullptr; }
const std::string& cublaslt_problem() { return search().problem; }

}  // namespace cuda
}  // namespace dw
