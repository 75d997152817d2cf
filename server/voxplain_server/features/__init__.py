"""What is switched off together: grids, supervoxels, modalities, label maps."""
