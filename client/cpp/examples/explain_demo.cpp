/// Explains one case of the demo and writes a NIfTI file for each map.
///
///     voxplain-server --models examples/glioma_demo/models &
///     client/cpp/build/explain_demo 127.0.0.1:50051 examples/glioma_demo/cases/case-1 out
#include <filesystem>
#include <iostream>

#include "voxplain/client.hpp"
#include "voxplain/nifti.hpp"

namespace {

namespace v1 = voxplain::v1;

struct Show {
  std::filesystem::path out;

  void operator()(const v1::Prediction& prediction) const {
    std::cout << "the model says " << prediction.target_name() << ", score " << prediction.score() << "\n";
  }
  void operator()(const v1::Progress& progress) const {
    std::cout << v1::Progress::Stage_Name(progress.stage()) << " " << progress.method_key() << " " << progress.evaluations_done()
              << std::endl;
  }
  void operator()(const voxplain::MapPointer& map) const {
    const auto folder = out / map->header.method_key();
    std::filesystem::create_directories(folder);
    const std::string name = map->header.modalities_size() == 1 ? map->header.modalities(0) : "shared";
    voxplain::write_nifti((folder / (name + ".nii.gz")).string(), map->voxels, map->shape, map->affine);
  }
  void operator()(const v1::MethodResult& result) const {
    std::cout << result.method_key() << ": " << v1::Outcome_Name(result.outcome()) << " " << result.reason() << "\n";
  }
  void operator()(const voxplain::Resuming& resuming) const {
    std::cout << resuming.fault.what() << "; on again in " << resuming.wait.count() << " ms\n";
  }
  void operator()(const v1::Accepted&) const {}
  void operator()(const v1::ExplanationRecord&) const {}
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::cerr << "usage: explain_demo HOST:PORT CASE-FOLDER OUT-FOLDER\n";
    return 2;
  }
  const std::filesystem::path folder = arguments[2];
  try {
    voxplain::Request request;
    request.spec.set_model("glioma-demo");
    for (const auto* name : {"grad-cam", "feature-ablation"}) *request.spec.add_methods() = voxplain::make_method(name);
    for (const std::string modality : {"t1", "t1c", "t2", "flair"}) {
      auto image = voxplain::read_nifti((folder / (modality + ".nii.gz")).string());
      request.volumes.push_back({modality, std::move(image.voxels), image.shape, image.affine});
    }
    request.timeout = std::chrono::minutes(10);
    voxplain::Client client(arguments[1]);
    auto explanation = client.explain(std::move(request));
    for (const voxplain::Event& event : explanation) std::visit(Show{arguments[3]}, event);
  } catch (const voxplain::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
