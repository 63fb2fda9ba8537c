"""From scores to the fraction of experts who mark a voxel: tally, bins, map, calibrator, file."""
