#include "native/backends/cuda/cublas_lt.h"

#include <cstdlib>
#include <map>
#include <tuple>
#include <vector>

#include "native/base/error.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace vmoba::cuda {
namespace {

// The part of cuBLASLt's C interface used here, declared anew (library versions 12 and 13; NVIDIA, "cuBLAS library user guide").
using Handle = void*;
using Descriptor = void*;
struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspaceBytes;
  int state;
  float waves;
  int reserved[4];
};
constexpr int kRealF32 = 0, kRealBf16 = 14, kRealE4m3 = 28;  // cudaDataType
constexpr int kComputeF32 = 68;                             // cublasComputeType_t
constexpr int kTransposed = 1;                              // cublasOperation_t
constexpr int kTransposeA = 3, kEpilogue = 7, kBiasPointer = 8, kScaleA = 17, kScaleB = 18, kBiasType = 26;  // cublasLtMatmulDescAttributes_t
constexpr uint32_t kPlain = 1, kBias = 4, kGelu = 32;       // cublasLtEpilogue_t
constexpr int kMostWorkspace = 1;                           // cublasLtMatmulPreferenceAttributes_t

struct Functions {
  int (*create)(Handle*);
  int (*destroy)(Handle);
  size_t (*version)();
  int (*descriptorCreate)(Descriptor*, int, int);
  int (*descriptorSet)(Descriptor, int, const void*, size_t);
  int (*descriptorDestroy)(Descriptor);
  int (*layoutCreate)(Descriptor*, int, uint64_t, uint64_t, int64_t);
  int (*layoutDestroy)(Descriptor);
  int (*preferenceCreate)(Descriptor*);
  int (*preferenceSet)(Descriptor, int, const void*, size_t);
  int (*preferenceDestroy)(Descriptor);
  int (*heuristic)(Handle, Descriptor, Descriptor, Descriptor, Descriptor, Descriptor, Descriptor, int, Heuristic*, int*);
  int (*matmul)(Handle, Descriptor, const void*, const void*, Descriptor, const void*, Descriptor, const void*, const void*, Descriptor, void*, Descriptor,
                const Algorithm*, void*, size_t, void*);
};

#if defined(_WIN32)
constexpr const char* kNames[] = {"cublasLt64_13.dll", "cublasLt64_12.dll"};
void* openLibrary(const char* name) { return LoadLibraryA(name); }
void* symbol(void* library, const char* name) { return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name)); }
#else
constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.12"};
void* openLibrary(const char* name) { return dlopen(name, RTLD_NOW | RTLD_LOCAL); }
void* symbol(void* library, const char* name) { return dlsym(library, name); }
#endif

/// One shape's descriptors and chosen algorithm. In cuBLAS's column-major terms: outᵀ [n, m] = (Wᵀ)ᵀ · xᵀ.
struct Plan {
  Descriptor operation = nullptr, w = nullptr, x = nullptr, out = nullptr;
  Algorithm algorithm{};
  bool usable = false;
};

class Library final : public CublasLt {
 public:
  Library(const Functions& functions, bool fp8) : call_(functions), fp8_(fp8) { check(call_.create(&handle_), "cublasLtCreate"); }
  ~Library() override {
    for (auto& [key, plan] : plans_) release(plan);
    call_.destroy(handle_);
  }

  std::string name() const override {
    const size_t v = call_.version();
    return "cuBLASLt " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
  }

  bool multipliesFp8() const override { return fp8_; }

  bool linear(const BlasLinear& job, void* workspace, void* stream) override {
    // Its GELU is the tanh form; other functions are left to our own kernels. Vectors of 16 bytes along k and n.
    const int64_t vector = 16 / static_cast<int64_t>(elementBytes(job.type));
    if (job.function != Function::None && job.function != Function::GeluTanh) return false;
    if (job.k % vector != 0 || job.n % vector != 0) return false;
    Plan& plan = planFor(job);
    if (!plan.usable) return false;
    setPointers(plan, job);
    const float one = 1, zero = 0;
    check(call_.matmul(handle_, plan.operation, &one, job.weight, plan.w, job.x, plan.x, &zero, job.out, plan.out, job.out, plan.out, &plan.algorithm, workspace,
                       workspaceBytes, stream),
          "cublasLtMatmul");
    return true;
  }

 private:
  using Key = std::tuple<DType, int64_t, int64_t, int64_t, int64_t, DType, Function, bool>;

  static void check(int status, const char* what) {
    if (status != 0) throw Error(ErrorCode::DeviceLost, std::string("the GPU failed in ") + what + " (status " + std::to_string(status) + "); the render can be resumed on the CPU, or on the GPU after a restart");
  }

  Plan& planFor(const BlasLinear& job) {
    const Key key{job.type, job.m, job.n, job.k, job.outStride, job.outType, job.function, job.bias != nullptr};
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    Plan& plan = plans_[key];
    const int outType = job.outType == DType::BF16 ? kRealBf16 : kRealF32, type = job.type == DType::F8E4M3 ? kRealE4m3 : kRealBf16;
    check(call_.descriptorCreate(&plan.operation, kComputeF32, kRealF32), "cublasLtMatmulDescCreate");
    set(plan.operation, kTransposeA, kTransposed);
    const uint32_t epilogue = (job.bias != nullptr ? kBias : 0u) | (job.function == Function::GeluTanh ? kGelu : 0u);
    set(plan.operation, kEpilogue, epilogue == 0 ? kPlain : epilogue);
    if (job.bias != nullptr) set(plan.operation, kBiasType, job.type == DType::F8E4M3 ? kRealBf16 : outType);
    setPointers(plan, job);  // the bias' alignment takes part in the choice
    const auto n = static_cast<uint64_t>(job.n), m = static_cast<uint64_t>(job.m), k = static_cast<uint64_t>(job.k);
    check(call_.layoutCreate(&plan.w, type, k, n, job.k), "cublasLtMatrixLayoutCreate");
    check(call_.layoutCreate(&plan.x, type, k, m, job.k), "cublasLtMatrixLayoutCreate");
    check(call_.layoutCreate(&plan.out, outType, n, m, job.outStride), "cublasLtMatrixLayoutCreate");
    Descriptor preference = nullptr;
    check(call_.preferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const size_t most = workspaceBytes;
    check(call_.preferenceSet(preference, kMostWorkspace, &most, sizeof most), "cublasLtMatmulPreferenceSetAttribute");
    Heuristic best{};
    int count = 0;
    const int status = call_.heuristic(handle_, plan.operation, plan.w, plan.x, plan.out, plan.out, preference, 1, &best, &count);
    call_.preferenceDestroy(preference);
    plan.usable = status == 0 && count > 0 && best.state == 0;
    plan.algorithm = best.algorithm;
    return plan;
  }

  void setPointers(Plan& plan, const BlasLinear& job) {
    if (job.bias != nullptr) set(plan.operation, kBiasPointer, job.bias);
    if (job.type != DType::F8E4M3) return;
    set(plan.operation, kScaleA, job.weightScale);
    set(plan.operation, kScaleB, job.xScale);
  }

  template <class T>
  void set(Descriptor descriptor, int attribute, const T& value) {
    check(call_.descriptorSet(descriptor, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }

  void release(Plan& plan) {
    if (plan.operation != nullptr) call_.descriptorDestroy(plan.operation);
    for (Descriptor layout : {plan.w, plan.x, plan.out})
      if (layout != nullptr) call_.layoutDestroy(layout);
  }

  Functions call_;
  bool fp8_;
  Handle handle_ = nullptr;
  std::map<Key, Plan> plans_;
};

bool resolve(void* library, Functions& f) {
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol(library, name));
    return function != nullptr;
  };
  return find(f.create, "cublasLtCreate") && find(f.destroy, "cublasLtDestroy") && find(f.version, "cublasLtGetVersion") &&
         find(f.descriptorCreate, "cublasLtMatmulDescCreate") && find(f.descriptorSet, "cublasLtMatmulDescSetAttribute") &&
         find(f.descriptorDestroy, "cublasLtMatmulDescDestroy") && find(f.layoutCreate, "cublasLtMatrixLayoutCreate") &&
         find(f.layoutDestroy, "cublasLtMatrixLayoutDestroy") && find(f.preferenceCreate, "cublasLtMatmulPreferenceCreate") &&
         find(f.preferenceSet, "cublasLtMatmulPreferenceSetAttribute") && find(f.preferenceDestroy, "cublasLtMatmulPreferenceDestroy") &&
         find(f.heuristic, "cublasLtMatmulAlgoGetHeuristic") && find(f.matmul, "cublasLtMatmul");
}

}  // namespace

std::unique_ptr<CublasLt> CublasLt::open(std::string* why, bool fp8) {
  std::vector<std::string> names(std::begin(kNames), std::end(kNames));
  if (const char* named = std::getenv("VMOBA_CUBLASLT"); named != nullptr && *named != '\0') names = {named};
  *why = "cuBLASLt is not installed; linear layers use this program's own, slower products";
  for (const std::string& name : names) {
    void* library = openLibrary(name.c_str());
    if (library == nullptr) continue;
    Functions functions{};
    if (resolve(library, functions)) return std::make_unique<Library>(functions, fp8);
    *why = name + " lacks functions this program uses; linear layers use its own, slower products";
  }
  return nullptr;
}

}  // namespace vmoba::cuda
