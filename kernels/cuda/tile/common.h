// What host code needs to know of the tile layer: annotations of functions, and the stream a kernel is launched on.
#pragma once

#ifdef __CUDACC__
#define TILE_DEVICE __device__ __forceinline__
#define TILE_SHARED_CODE __host__ __device__ __forceinline__  // arithmetic that launch code uses too
#define TILE_UNROLL _Pragma("unroll")
#define TILE_PRAGMA(text) _Pragma(#text)
#define TILE_UNROLL_BY(n) TILE_PRAGMA(unroll n)
#else
#define TILE_DEVICE inline
#define TILE_SHARED_CODE inline
#define TILE_UNROLL _Pragma("GCC unroll 64")
#define TILE_UNROLL_BY(n)
#endif

namespace vmoba::tile {

/// In order of launches. `handle`: a cudaStream_t on the GPU; a const emulation::Options* in the emulator; null = the default.
struct Stream {
  void* handle = nullptr;
};

}  // namespace vmoba::tile
