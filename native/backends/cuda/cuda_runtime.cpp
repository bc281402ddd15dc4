#include "native/backends/cuda/cuda_runtime.h"

#include <cuda_runtime_api.h>

#include "native/base/error.h"

namespace vmoba::cuda {
namespace {

void check(cudaError_t status, const char* operation) {
  if (status == cudaSuccess) return;
  throw Error(ErrorCode::DeviceLost, std::string("the GPU failed during ") + operation + ": " + cudaGetErrorString(status) +
                                         "; the render can be resumed on the CPU, or on the GPU after a restart");
}

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  return cudaDeviceGetAttribute(&value, which, ordinal) == cudaSuccess ? value : 0;
}

/// Dense bf16 tensor FLOPs per clock and multiprocessor.
double flopsPerClock(int major, int minor) {
  if (major >= 9) return 4096;
  return major == 8 && minor == 0 ? 2048 : 1024;
}

DeviceFacts factsOf(int ordinal) {
  DeviceFacts facts;
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "reading its properties");
  facts.name = properties.name;
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.sharedBytesPerBlock = properties.sharedMemPerBlockOptin;
  facts.memoryBytes = properties.totalGlobalMem;
#ifdef VMOBA_SM90A
  facts.warpgroups = facts.major == 9 && facts.minor == 0;
#endif
  facts.peakFlops = 1e3 * attribute(cudaDevAttrClockRate, ordinal) * facts.multiprocessors * flopsPerClock(facts.major, facts.minor);
  return facts;
}

struct CudaEvent final : DeviceEvent {
  cudaEvent_t event = nullptr;
  ~CudaEvent() override {
    if (event != nullptr) cudaEventDestroy(event);
  }
};

cudaEvent_t eventOf(const DeviceEvent& event) { return static_cast<const CudaEvent&>(event).event; }

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int ordinal) : ordinal_(ordinal), facts_(factsOf(ordinal)) {
    bindThread();
    // Waiting threads sleep instead of spinning: the CPU is the user's. Only a wish, so its failure is cleared.
    if (cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync) != cudaSuccess) cudaGetLastError();
    for (cudaStream_t& stream : streams_) check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  }
  ~CudaRuntime() override {
    for (cudaStream_t stream : streams_)
      if (stream != nullptr) cudaStreamDestroy(stream);
  }

  DeviceFacts facts() const override { return facts_; }
  size_t freeBytes() override {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "reading its free memory");
    return free;
  }
  std::byte* allocate(size_t bytes) override {
    void* address = nullptr;
    const cudaError_t status = cudaMalloc(&address, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // not sticky: clear it
      return nullptr;
    }
    check(status, "allocating memory");
    return static_cast<std::byte*>(address);
  }
  void free(std::byte* address) noexcept override { cudaFree(address); }
  std::byte* allocatePinned(size_t bytes) override {
    void* address = nullptr;
    if (cudaHostAlloc(&address, bytes, cudaHostAllocDefault) == cudaSuccess) return static_cast<std::byte*>(address);
    cudaGetLastError();
    return nullptr;
  }
  void freePinned(std::byte* address) noexcept override { cudaFreeHost(address); }

  void copyToDevice(StreamId stream, std::byte* device, const std::byte* host, size_t bytes) override {
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, of(stream)), "a copy to it");
  }
  void copyToHost(StreamId stream, std::byte* host, const std::byte* device, size_t bytes) override {
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, of(stream)), "a copy from it");
  }
  void copyOnDevice(StreamId stream, std::byte* destination, const std::byte* source, size_t bytes) override {
    check(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, of(stream)), "a copy on it");
  }
  void zero(StreamId stream, std::byte* device, size_t bytes) override { check(cudaMemsetAsync(device, 0, bytes, of(stream)), "clearing memory"); }

  std::unique_ptr<DeviceEvent> makeEvent() override {
    auto event = std::make_unique<CudaEvent>();
    check(cudaEventCreateWithFlags(&event->event, cudaEventBlockingSync), "creating an event");
    return event;
  }
  void record(DeviceEvent& event, StreamId stream) override { check(cudaEventRecord(eventOf(event), of(stream)), "recording an event"); }
  void wait(StreamId stream, const DeviceEvent& event) override { check(cudaStreamWaitEvent(of(stream), eventOf(event), 0), "ordering its streams"); }
  bool reached(const DeviceEvent& event) override {
    const cudaError_t status = cudaEventQuery(eventOf(event));
    if (status == cudaErrorNotReady) {
      cudaGetLastError();  // an answer, not a fault: it must not surface at the next launch
      return false;
    }
    check(status, "its work");
    return true;
  }
  double secondsBetween(const DeviceEvent& from, const DeviceEvent& to) override {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, eventOf(from), eventOf(to)), "timing");
    return static_cast<double>(milliseconds) * 1e-3;
  }
  void synchronize(StreamId stream) override { check(cudaStreamSynchronize(of(stream)), "its work"); }

  void launch(StreamId stream, const char* operation, const std::function<void(void*)>& enqueue) override {
    enqueue(of(stream));
    check(cudaGetLastError(), operation);
  }
  void bindThread() override { check(cudaSetDevice(ordinal_), "selecting it"); }

 private:
  cudaStream_t of(StreamId stream) const { return streams_[static_cast<size_t>(stream)]; }

  int ordinal_;
  DeviceFacts facts_;
  std::array<cudaStream_t, 2> streams_{};
};

}  // namespace

Probe probeCuda() {
  Probe probe;
  cudaDriverGetVersion(&probe.driverVersion);
  cudaRuntimeGetVersion(&probe.runtimeVersion);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    if (status != cudaErrorNoDevice) probe.failure = cudaGetErrorString(status);
    return probe;
  }
  for (int i = 0; i < count; ++i) probe.devices.push_back(factsOf(i));
  return probe;
}

std::shared_ptr<DeviceRuntime> makeCudaRuntime(int ordinal) { return std::make_shared<CudaRuntime>(ordinal); }

}  // namespace vmoba::cuda
