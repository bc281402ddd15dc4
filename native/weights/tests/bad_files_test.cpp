// Every way a weight file can be wrong ends in one line "<file>: <tensor>: <reason>".
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "native/base/error.h"
#include "native/weights/checkpoint.h"
#include "native/weights/tests/rewrite.h"

namespace vmoba::test {
namespace {

std::string fixture(const std::string& name) { return std::string(VMOBA_FIXTURES) + "/" + name; }

std::string safetensors(const std::string& header, size_t dataBytes) {
  std::string out(8, '\0');
  const auto length = static_cast<uint64_t>(header.size());
  std::memcpy(out.data(), &length, sizeof length);
  return out + header + std::string(dataBytes, '\0');
}

std::string refusal(const std::string& path) {
  try {
    (void)Checkpoint::open(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadModelFile) << error.what();
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_EQ(message.rfind(path, 0), 0u) << message;
    return message.substr(path.size());
  }
  return "accepted";
}

class BadFile : public testing::Test {
 protected:
  TemporaryFolder folder;
  std::string refusalOf(const std::string& bytes) {
    writeText(folder.file("m.safetensors"), bytes);
    return refusal(folder.file("m.safetensors"));
  }
  std::string refusalOfHeader(const std::string& header, size_t dataBytes = 8) { return refusalOf(safetensors(header, dataBytes)); }
};

TEST_F(BadFile, Truncated) {
  const std::string whole = readText(fixture("wan_dit_t2v_tiny.safetensors"));
  EXPECT_EQ(refusalOf(whole.substr(0, whole.size() / 2)).rfind(": blocks.", 0), 0u);
  EXPECT_NE(refusalOf(whole.substr(0, whole.size() - 1)).find("(truncated?)"), std::string::npos);
  EXPECT_EQ(refusalOf(whole.substr(0, 500)), ": header: is said to have 8992 bytes, more than the file (500 bytes) holds");
  EXPECT_EQ(refusalOf(whole.substr(0, 5)), ": header: the file has 5 bytes, too few for a safetensors file");
  EXPECT_EQ(refusalOf(""), ": header: the file has 0 bytes, too few for a safetensors file");
  // No prefix whatever may be accepted or read out of bounds.
  for (size_t size = 0; size < whole.size(); size += 997) EXPECT_NE(refusalOf(whole.substr(0, size)), "accepted") << size;
}

TEST_F(BadFile, HeaderLongerThanTheFile) {
  EXPECT_EQ(refusalOf(std::string(8, '\xff') + "{}"), ": header: is said to have 18446744073709551615 bytes, more than the file (10 bytes) holds");
  EXPECT_EQ(refusalOf(std::string("\x03\0\0\0\0\0\0\0{}", 10)), ": header: is said to have 3 bytes, more than the file (10 bytes) holds");
}

TEST_F(BadFile, HeaderThatIsNotStrictJson) {
  EXPECT_EQ(refusalOfHeader(""), ": header: does not start with '{'");
  EXPECT_EQ(refusalOfHeader("[]"), ": header: does not start with '{'");
  EXPECT_EQ(refusalOfHeader(R"({"a":)"), ": header: invalid JSON at byte 5: expected a value");
  EXPECT_EQ(refusalOfHeader("{} x").rfind(": header: invalid JSON", 0), 0u);
  EXPECT_EQ(refusalOfHeader("{\"\xff\":1}").rfind(": header: invalid JSON", 0), 0u);
  EXPECT_EQ(refusalOfHeader(std::string(200000, '{')).rfind(": header: invalid JSON", 0), 0u);
}

TEST_F(BadFile, DuplicateNames) {
  const std::string entry = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_NE(refusalOfHeader(R"({"a":)" + entry + R"(,"a":)" + entry + "}").find("duplicate keys"), std::string::npos);
}

TEST_F(BadFile, OverlappingOrStrayOffsets) {
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
            ": b: its data overlap those of a");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"), ": a: 4 unused bytes lie before its data");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"), ": header: 4 bytes behind the last tensor belong to none");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})"),
            ": a: data end at byte 12 but the file holds only 8 bytes of data (truncated?)");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})"), ": a: data offsets 8 to 4 are not a range");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})"), ": a: data offsets -4 to 0 are not a range");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[9223372036854775800,9223372036854775807]}})").rfind(": a: data end at byte 9223372036854775807", 0), 0u);
  for (const std::string offsets : {"[0]", "[0,4,8]", "[0,4.5]", "[0,99999999999999999999]", "\"x\"", "null"})
    EXPECT_NE(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + offsets + "}}"), "accepted") << offsets;
}

TEST_F(BadFile, AbsurdShapes) {
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})"), ": a: shape [4611686018427387904, 4] overflows");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,8]}})"),
            ": a: shape [4611686018427387904] of F64 does not match its 8 bytes of data");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296,4294967296],"data_offsets":[0,0]}})").rfind(": a: shape", 0), 0u);
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})"), ": a: its shape holds something other than non-negative whole numbers");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}})"), ": a: has more than 8 axes");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})"), ": a: its entry has no shape");
}

TEST_F(BadFile, WrongElementSizeOrType) {
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,8]}})"), ": a: shape [2] of F16 does not match its 8 bytes of data");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"dtype":"F8_E5M2","shape":[8],"data_offsets":[0,8]}})"), ": a: element type 'F8_E5M2' is not supported");
  EXPECT_EQ(refusalOfHeader(R"({"a":{"shape":[2],"data_offsets":[0,8]}})"), ": a: its entry has no dtype");
  EXPECT_EQ(refusalOfHeader(R"({"a":3})"), ": a: its entry in the header is not an object");
  EXPECT_EQ(refusalOfHeader(R"({"__metadata__":{"x":1}})", 0), ": __metadata__: 'x' is not a text");
}

TEST_F(BadFile, NamesFitOneLine) {
  EXPECT_EQ(refusalOfHeader(R"({"a\nb\u001b[2J":3})"), ": a?b?[2J: its entry in the header is not an object");
  EXPECT_LT(refusalOfHeader("{\"" + std::string(100000, 'n') + "\":3}").size(), 300u);
  EXPECT_NE(refusalOfHeader(R"({"":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"), "accepted");
}

TEST_F(BadFile, PicklesAndOtherFormatsWhateverTheirName) {
  for (const std::string name : {"models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pt", "a.ckpt", "a.bin"}) {
    const std::string message = refusal(folder.file(name));
    EXPECT_NE(message.find("pickle"), std::string::npos);
    EXPECT_NE(message.find("Comfy-Org/Wan_2.1_ComfyUI_repackaged"), std::string::npos);
  }
  EXPECT_NE(refusalOf(std::string("PK\x03\x04", 4) + std::string(100, '\0')).find("pickle"), std::string::npos);
  EXPECT_NE(refusalOf("\x80\x02}q" + std::string(100, 'x')).find("pickle"), std::string::npos);
  EXPECT_NE(refusalOf("GGUF" + std::string(100, '\0')).find("GGUF"), std::string::npos);
  EXPECT_NE(refusalOf("version https://git-lfs.github.com/spec/v1\n").find("git lfs pull"), std::string::npos);
}

TEST_F(BadFile, Folders) {
  EXPECT_EQ(refusal(folder.path()), ": folder: holds no .safetensors file");
  writeText(folder.file("a.pth"), "");
  EXPECT_NE(refusal(folder.path()).find("pickle"), std::string::npos);
  const auto empty = safetensors("{}", 0);
  writeText(folder.file("a.safetensors"), empty);
  EXPECT_NO_THROW(Checkpoint::open(folder.path()));
  writeText(folder.file("b.safetensors"), empty);
  EXPECT_EQ(refusal(folder.path()), ": folder: holds 2 .safetensors files and no index; name the one to open");
}

TEST_F(BadFile, NamedPipesDoNotBlock) {
  ASSERT_EQ(::mkfifo(folder.file("pipe.safetensors").c_str(), 0600), 0);
  EXPECT_THROW((void)Checkpoint::open(folder.file("pipe.safetensors")), Error);
}

TEST_F(BadFile, MissingFilesAreAnIoError) {
  try {
    (void)Checkpoint::open(folder.file("none.safetensors"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Io);
    EXPECT_EQ(error.what(), folder.file("none.safetensors") + ": no such file");
  }
}

TEST_F(BadFile, ShardIndexes) {
  const std::string index = folder.file("m.safetensors.index.json");
  const auto refusalOfIndex = [&](const std::string& text) {
    writeText(index, text);
    return refusal(index);
  };
  writeText(folder.file("s1.safetensors"), safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8));
  writeText(folder.file("s2.safetensors"), safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8));
  EXPECT_EQ(refusalOfIndex(R"({"weight_map":{"a":"s1.safetensors"}})"), "accepted");
  EXPECT_EQ(refusalOfIndex(R"({"weight_map":{"a":"s9.safetensors"}})"), ": a: its shard s9.safetensors is missing");
  EXPECT_EQ(refusalOfIndex(R"({"weight_map":{"b":"s1.safetensors"}})"), ": b: is not in s1.safetensors, where the index says it is");
  for (const std::string shard : {"../s1.safetensors", "/etc/s1.safetensors", "..", "x\\\\..\\\\s1.safetensors", "", "c:s1.safetensors", "s1\\u0000.safetensors"})
    EXPECT_NE(refusalOfIndex(R"({"weight_map":{"a":")" + shard + "\"}}").find("is not a plain file name in the index's folder"), std::string::npos) << shard;
  EXPECT_EQ(refusalOfIndex(R"({"weight_map":{"a":"s1.pth"}})"), ": a: shard 's1.pth' is not a .safetensors file");
  EXPECT_EQ(refusalOfIndex(R"({"weight_map":{"a":1}})"), ": a: its shard is not a text");
  EXPECT_EQ(refusalOfIndex(R"({"weight_map":[]})"), ": index: has no object 'weight_map'");
  EXPECT_EQ(refusalOfIndex(R"({"weight_map":{}})"), ": index: lists no tensor");
  EXPECT_EQ(refusalOfIndex("x"), ": index: invalid JSON at byte 0: expected a value");
  writeText(index, R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}})");
  try {
    (void)Checkpoint::open(index);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), folder.file("s2.safetensors") + ": a: is also in " + folder.file("s1.safetensors"));
  }
}

TEST_F(BadFile, Scales) {
  const auto refusalOfScale = [&](const std::string& scaleName, const Tensor& scale, DType weight = DType::F8E4M3) {
    write(folder.file("m.safetensors"), {{"x.weight", {weight, {2}, std::string(2 * elementBytes(weight), '\0')}}, {scaleName, scale}});
    return refusal(folder.file("m.safetensors"));
  };
  const auto bytes = [](float value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); };
  EXPECT_EQ(refusalOfScale("x.scale_weight", {DType::F32, {1}, bytes(2)}), "accepted");
  EXPECT_EQ(refusalOfScale("x.weight_scale", {DType::F32, {2}, bytes(2) + bytes(2)}), ": x.weight_scale: a scale must be one floating-point number, not F32 [2]");
  EXPECT_EQ(refusalOfScale("x.weight_scale", {DType::F32, {}, bytes(NAN)}), ": x.weight_scale: a scale must be a positive finite number");
  EXPECT_EQ(refusalOfScale("y.weight_scale", {DType::F32, {}, bytes(1)}), ": y.weight_scale: scales a weight that is missing");
  EXPECT_EQ(refusalOfScale("x.weight_scale", {DType::F32, {}, bytes(1)}, DType::I64), ": x.weight_scale: scales a weight of type I64");
  const std::string nvfp4 = R"({"format":"nvfp4"})";
  EXPECT_EQ(refusalOfScale("x.comfy_quant", {DType::U8, {static_cast<int64_t>(nvfp4.size())}, nvfp4}),
            ": x.comfy_quant: layer x is quantised as 'nvfp4', which is not supported");
  EXPECT_EQ(refusalOfScale("x.comfy_quant", {DType::U8, {1}, "{"}).rfind(": x.comfy_quant: invalid JSON", 0), 0u);
}

std::string expectation(const Checkpoint& checkpoint, ModelKind kind, const std::vector<std::string>& names, bool refuseExtra = true) {
  try {
    checkpoint.expect(kind, names, refuseExtra);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadModelFile);
    return std::string(error.what()).substr(checkpoint.path().size());
  }
  return "accepted";
}

TEST(Expectation, RefusesAnotherKindOfModel) {
  const Checkpoint vae = Checkpoint::open(fixture("wan_vae_tiny.safetensors"));
  EXPECT_EQ(expectation(vae, ModelKind::WanDit, {}), ": decoder.conv1.weight: the file holds a Wan VAE, but a Wan DiT is needed");
  const Checkpoint io = Checkpoint::open(fixture("wan_vae_tiny.io.safetensors"));
  EXPECT_EQ(expectation(io, ModelKind::WanVae, {}), ": file: the file holds no known model, but a Wan VAE is needed");
}

TEST(Expectation, NamesTheFirstFiveMissingAndUnexpectedTensors) {
  const Checkpoint dit = Checkpoint::open(fixture("wan_dit_t2v_tiny.safetensors"));
  std::vector<std::string> names;
  for (const auto& [name, tensor] : dit.tensors()) names.push_back(name);
  EXPECT_EQ(expectation(dit, ModelKind::WanDit, names), "accepted");
  auto more = names;
  for (const char* extra : {"m1", "m2", "m3", "m4", "m5", "m6", "m7"}) more.emplace_back(extra);
  EXPECT_EQ(expectation(dit, ModelKind::WanDit, more),
            ": m1: the tensors are not those of a Wan DiT: 7 missing (m1, m2, m3, m4, m5 and 2 more)");
  const std::vector<std::string> fewer(names.begin() + 2, names.end());
  EXPECT_EQ(expectation(dit, ModelKind::WanDit, fewer),
            ": blocks.0.cross_attn.k.bias: the tensors are not those of a Wan DiT: 2 unexpected (blocks.0.cross_attn.k.bias, blocks.0.cross_attn.k.weight)");
  EXPECT_EQ(expectation(dit, ModelKind::WanDit, fewer, false), "accepted");
  auto both = fewer;
  both.emplace_back("m1");
  EXPECT_EQ(expectation(dit, ModelKind::WanDit, both),
            ": m1: the tensors are not those of a Wan DiT: 1 missing (m1), 2 unexpected (blocks.0.cross_attn.k.bias, blocks.0.cross_attn.k.weight)");
}

TEST(Expectation, NamesTheTensorOfAWrongShape) {
  const Checkpoint dit = Checkpoint::open(fixture("wan_dit_t2v_tiny.safetensors"));
  try {
    (void)dit.require("patch_embedding.weight", {96, 16, 1, -1, 3});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), dit.path() + ": patch_embedding.weight: has shape [96, 16, 1, 2, 2] where [96, 16, 1, any, 3] is needed");
    EXPECT_EQ(error.field(), "patch_embedding.weight");
  }
  EXPECT_THROW((void)dit.require("nothing"), Error);
}

}  // namespace
}  // namespace vmoba::test
