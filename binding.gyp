# The CPU addon. (GCC 12 takes the undefined lanes in its own AVX-512 headers for a mistake: hence no -Wuninitialized.)
# Every file of native/cpu/ and its folders, but for isa.cc, is compiled once for each instruction set, in a namespace of its
# own; the set is chosen when the addon is loaded. The portable objects are linked first: where the linker merges an inline
# function that several of them hold, it keeps the one that runs anywhere. DISTILWHISPER_KERNELS (avx2,avx512, …) names those that are
# compiled beside the portable ones; default: all.
{
  "variables": {
    "sanitize%": "<!(node -p \"process.env.DISTILWHISPER_SANITIZE || ''\")",
    "kernel_sets%": "<!(node -p \"',' + (process.env.DISTILWHISPER_KERNELS || 'avx2,avx512,avx512bf16,amx') + ','\")",
    "kernel_sources": ["<!@(node -p \"require('fs').readdirSync('native/cpu', { recursive: true }).filter(f => f.endsWith('.cc') && f !== 'isa.cc').map(f => 'native/cpu/' + f.split(require('path').sep).join('/')).sort().join(' ')\")"],
    "kernel_flags": ["-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffp-contract=fast", "-Wno-uninitialized", "-Wno-maybe-uninitialized"],
    "avx2_flags": ["-mavx2", "-mfma", "-mf16c"],
    "avx512_flags": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"]
  },
  "target_defaults": {
    "include_dirs": ["native"],
    "cflags!": ["-fno-exceptions"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
    "cflags_cc": ["-std=c++17", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
    "xcode_settings": {
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "CLANG_CXX_LANGUAGE_STANDARD": "c++17",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "GCC_OPTIMIZATION_LEVEL": "3"
    },
    "conditions": [
      ["sanitize!=''", { "cflags_cc": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-g1", "-O1"], "ldflags": ["-fsanitize=<(sanitize)"] }]
    ]
  },
  "targets": [
    {
      "target_name": "kernels_portable",
      "type": "static_library",
      "sources": ["<@(kernel_sources)"],
      "defines": ["DW_ISA=portable"],
      "cflags_cc": ["<@(kernel_flags)"]
    },
    {
      "target_name": "distilwhisper",
      "sources": ["native/cpu/isa.cc", "<!@(node -p \"['binding','core','ops','plan','reference'].flatMap(d => require('fs').readdirSync('native/' + d).filter(f => f.endsWith('.cc')).map(f => 'native/' + d + '/' + f)).join(' ')\")"],
      "defines": ["NAPI_VERSION=8", "NAPI_CPP_EXCEPTIONS", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except", "kernels_portable"],
      "conditions": [
        ["target_arch=='x64' and ',avx2,' in kernel_sets", { "dependencies": ["kernels_avx2"], "defines": ["DW_AVX2"] }],
        ["target_arch=='x64' and ',avx512,' in kernel_sets", { "dependencies": ["kernels_avx512"], "defines": ["DW_AVX512"] }],
        ["target_arch=='x64' and ',avx512bf16,' in kernel_sets", { "dependencies": ["kernels_avx512bf16"], "defines": ["DW_AVX512BF16"] }],
        ["target_arch=='x64' and ',amx,' in kernel_sets", { "dependencies": ["kernels_amx"], "defines": ["DW_AMX"] }]
      ]
    }
  ],
  "conditions": [
    ["target_arch=='x64' and ',avx2,' in kernel_sets", {
      "targets": [
        {
          "target_name": "kernels_avx2",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["DW_ISA=avx2"],
          "cflags_cc": ["<@(kernel_flags)", "<@(avx2_flags)"]
        }
      ]
    }],
    ["target_arch=='x64' and ',avx512,' in kernel_sets", {
      "targets": [
        {
          "target_name": "kernels_avx512",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["DW_ISA=avx512"],
          "cflags_cc": ["<@(kernel_flags)", "<@(avx512_flags)"]
        }
      ]
    }],
    ["target_arch=='x64' and ',avx512bf16,' in kernel_sets", {
      "targets": [
        {
          "target_name": "kernels_avx512bf16",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["DW_ISA=avx512bf16"],
          "cflags_cc": ["<@(kernel_flags)", "<@(avx512_flags)", "-mavx512bf16", "-mavx512vnni"]
        }
      ]
    }],
    ["target_arch=='x64' and ',amx,' in kernel_sets", {
      "targets": [
        {
          "target_name": "kernels_amx",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["DW_ISA=amx"],
          "cflags_cc": ["<@(kernel_flags)", "<@(avx512_flags)", "-mavx512bf16", "-mavx512vnni", "-mamx-tile", "-mamx-bf16"]
        }
      ]
    }]
  ]
}
