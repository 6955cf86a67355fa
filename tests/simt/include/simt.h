// simt.h
// What ptx.cuh is to nvcc, for a C++ compiler: the words of CUDA C++ that the kernels use, on the runtime in
// ../runtime, which runs the threads of a block as fibers. Nothing of NVIDIA's is needed.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simt/vectors.h"

#include "simt/bf16.h"
#include "simt/device.h"

#include "simt/atomics.h"
#include "simt/barriers.h"
#include "simt/intrinsics.h"
#include "simt/kernels.h"
#include "simt/ptx.h"
#include "simt/warps.h"
