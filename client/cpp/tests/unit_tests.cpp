/// Tests of what needs no server: `ctest`, or the program itself. Ends with 1 when an expectation fails.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "access.hpp"
#include "conversation.hpp"
#include "voxplain/chunks.hpp"
#include "voxplain/client.hpp"
#include "voxplain/nifti.hpp"

namespace {

namespace v1 = voxplain::v1;

int failures = 0;

void expect(bool right, const char* what) {
  if (!right) {
    ++failures;
    std::cout << "FAILED: " << what << "\n";
  }
}

template <typename Kind, typename Act>
void expect_throws(Act act, const std::string& reason, const char* what) {
  try {
    act();
    expect(false, what);
  } catch (const Kind& error) {
    expect(error.reason() == reason, what);
  }
}

void the_checksum_is_that_of_rfc_3720() {
  const std::string zeros(32, '\0');
  expect(voxplain::crc32c(zeros.data(), zeros.size()) == 0x8a9136aaU, "CRC-32C of 32 zeros");
  const std::string odd = "123456789";
  expect(voxplain::crc32c(odd.data(), odd.size()) == 0xe3069283U, "CRC-32C of nine bytes");
}

void a_tensor_is_cut_into_chunks_of_one_mebibyte() {
  const std::vector<voxplain::Volume> volumes{{"t1", std::vector<float>(524'289), {524'289, 1}}};
  std::vector<std::size_t> sizes;
  voxplain::in_order(voxplain::make_payloads(volumes), [&](v1::TensorChunk& chunk) {
    expect(chunk.offset_bytes() == sizes.size() * voxplain::kMaxChunkBytes, "offsets without gap");
    sizes.push_back(chunk.data().size());
    return true;
  });
  expect(sizes == std::vector<std::size_t>{1 << 20, 1 << 20, 4}, "sizes of chunks");
}

void a_shape_that_does_not_fit_is_refused() {
  const std::vector<voxplain::Volume> volumes{{"t1", std::vector<float>(6), {2, 2}}};
  expect_throws<voxplain::InvalidSpec>([&] { voxplain::make_payloads(volumes); }, "SHAPE_MISMATCH", "shape and voxels disagree");
}

void a_method_is_made_by_its_name() {
  expect(voxplain::make_method("integrated-gradients").has_integrated_gradients(), "method by name");
  expect_throws<voxplain::InvalidSpec>([] { voxplain::make_method("key"); }, "METHOD_UNKNOWN", "a field that is no method");
}

void a_call_that_breaks_goes_on_from_the_checkpoint_and_tells_nothing_twice() {
  voxplain::Conversation talk(v1::ExplainSpec(), {});
  v1::ExplainResponse accepted, progress, result;
  accepted.mutable_accepted()->set_version("3");
  progress.mutable_progress()->set_checkpoint("half");
  result.mutable_method_result()->set_method_key("gradient");
  result.mutable_method_result()->set_outcome(v1::OUTCOME_COMPLETED);
  talk.begin();
  expect(talk.receive(accepted).has_value() && talk.receive(result).has_value(), "news are told");
  talk.receive(progress);
  const voxplain::ServerUnavailable lost({"CONNECTION_LOST", "cut"});
  expect(talk.recover(lost).from_checkpoint, "it goes on from the checkpoint");
  const auto spec = talk.begin();
  expect(spec.checkpoint() == "half" && spec.version() == "3", "the spec of the next call");
  expect(!talk.receive(accepted) && !talk.receive(result), "what was told is not told again");
  v1::ExplainResponse other = accepted;
  other.mutable_accepted()->set_model_digest("other");
  expect_throws<voxplain::UnsupportedByModel>([&] { talk.receive(other); }, "MODEL_CHANGED", "another model");
}

void patience_ends() {
  const voxplain::RetryPolicy policy;
  const voxplain::LimitExceeded full({"QUEUE_FULL", "", "", std::chrono::seconds(5)});
  expect(policy.wait(full, 1, true) == std::chrono::seconds(5), "the server's delay is kept");
  expect(!policy.wait(full, policy.attempts + 1, true), "attempts end");
  expect(!policy.wait(voxplain::LimitExceeded({"CALL_TOO_LARGE", ""}), 1, true), "no delay, no waiting");
  expect(!policy.wait(voxplain::ServerUnavailable({"CONNECTION_LOST", ""}), 2, false), "a wrong address is given up soon");
}

void a_file_that_is_written_is_read_again() {
  const auto folder = std::filesystem::temp_directory_path() / "voxplain-unit-tests";
  std::filesystem::create_directories(folder);
  std::vector<float> voxels;
  for (int place = 0; place < 24; ++place) voxels.push_back(static_cast<float>(place) / 2);
  const std::vector<double> affine{-2, 0, 0, 10, 0, 2, 0, -8, 0, 0, 3, -12, 0, 0, 0, 1};
  for (const auto* name : {"map.nii", "map.nii.gz"}) {
    voxplain::write_nifti((folder / name).string(), voxels, {2, 3, 4}, affine);
    const auto read = voxplain::read_nifti((folder / name).string());
    expect(std::get<std::vector<float>>(read.voxels) == voxels, "voxels of a file");
    expect(read.shape == std::vector<std::uint32_t>{2, 3, 4}, "shape of a file");
    expect(std::equal(affine.begin(), affine.end(), read.affine->begin()), "affine of a file");
  }
  std::ofstream(folder / "text.nii") << "no header";
  expect_throws<voxplain::InvalidSpec>([&] { voxplain::read_nifti((folder / "text.nii").string()); }, "NOT_NIFTI", "no header");
  std::filesystem::remove_all(folder);
}

void a_token_goes_to_another_host_with_tls_only() {
  const auto token = [](std::optional<voxplain::Tls> tls) {
    voxplain::ClientOptions options;
    options.tls = std::move(tls);
    options.token = "secret";
    return options;
  };
  for (const auto* server : {"explain.example:50051", "10.0.0.7:50051", "127.0.0.1.example:1", "[2001:db8::1]:1", "dns:///a:1"}) {
    expect_throws<voxplain::InvalidSpec>([&] { voxplain::Client(server, token(std::nullopt)); }, "ACCESS_INVALID", server);
    voxplain::Client(server, token(voxplain::Tls()));
  }
  for (const auto* server : {"localhost:50051", "127.0.0.1:50051", "127.8.9.1:1", "[::1]:50051", "dns:///localhost:1", "unix:/a"}) {
    expect(voxplain::is_this_host(server), server);
  }
}

}  // namespace

int main() {
  a_token_goes_to_another_host_with_tls_only();
  the_checksum_is_that_of_rfc_3720();
  a_tensor_is_cut_into_chunks_of_one_mebibyte();
  a_shape_that_does_not_fit_is_refused();
  a_method_is_made_by_its_name();
  a_call_that_breaks_goes_on_from_the_checkpoint_and_tells_nothing_twice();
  patience_ends();
  a_file_that_is_written_is_read_again();
  std::cout << (failures == 0 ? "all unit tests passed\n" : "unit tests failed\n");
  return failures == 0 ? 0 : 1;
}
