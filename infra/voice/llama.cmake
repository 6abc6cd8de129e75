# Read by CMake when it begins with llama.cpp: its helper library for programs is not built, because the bindings use
# none of it and it takes long. llama-cpp-python switches it on without asking.
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "build common utils library" FORCE)
