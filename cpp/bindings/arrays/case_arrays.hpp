// The arrays of a case as a CaseView, for the bindings of both modules.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack::bindings {

/// A case whose views, the region's too, live as long as this does.
class CaseArrays {
 public:
  CaseArrays(ArrayView score, std::vector<ArrayView> raters, std::optional<ArrayView> region)
      : region_(std::move(region)),
        view_{std::move(score), std::move(raters), region_ ? &*region_ : nullptr} {}
  CaseArrays(const CaseArrays&) = delete;
  CaseArrays& operator=(const CaseArrays&) = delete;

  const CaseView& view() const { return view_; }

 private:
  std::optional<ArrayView> region_;
  CaseView view_;
};

}  // namespace twintrack::bindings
