"""NIfTI files in and out. Needs the extra `imaging`."""

from voxplain_client.imaging.nifti import Nifti, read_nifti, write_nifti

__all__ = ["Nifti", "read_nifti", "write_nifti"]
