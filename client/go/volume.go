package voxplain

import (
	"fmt"
	"unsafe"

	pb "voxplain.dev/voxplain/v1"
)

// Volume is one tensor of a case.
type Volume struct {
	// Modality as the model names it; empty for shared labels and masks.
	Modality string
	// Voxels in C order (the last axis varies fastest): []float32, []int16, []int32 or []uint8.
	Voxels interface{}
	// Shape has the voxels along each axis.
	Shape []int
	// Affine is the row-major 4x4 matrix from voxel indices to patient coordinates in mm, RAS+; nil: not known.
	Affine []float64
	// Role is a volume to be explained where it is not set.
	Role pb.TensorRole
	// CaseIndex counts background cases from 0.
	CaseIndex int
}

// Payload is a declared tensor and its bytes.
type Payload struct {
	Header *pb.Tensor
	Bytes  []byte
}

func makePayloads(volumes []Volume) ([]Payload, error) {
	one := uint16(1)
	if *(*byte)(unsafe.Pointer(&one)) != 1 {
		return nil, refusal("BIG_ENDIAN_HOST", "voxels travel little-endian; use a little-endian host", "")
	}
	payloads := make([]Payload, 0, len(volumes))
	for place, volume := range volumes {
		field := fmt.Sprintf("volumes[%d]", place)
		dataType, bytes, count := bytesOf(volume.Voxels)
		if dataType == pb.DataType_DATA_TYPE_UNSPECIFIED {
			return nil, refusal("DTYPE_UNSUPPORTED", "voxels are []float32, []int16, []int32 or []uint8", field)
		}
		shape, held := make([]uint32, 0, len(volume.Shape)), 1
		for _, edge := range volume.Shape {
			shape = append(shape, uint32(edge))
			held *= edge
		}
		if held != count {
			return nil, refusal("SHAPE_MISMATCH", fmt.Sprintf("the shape holds %d voxels, the slice %d", held, count), field)
		}
		if len(volume.Affine) != 0 && len(volume.Affine) != 16 {
			return nil, refusal("AFFINE_INVALID", "an affine has 16 numbers, row by row", field)
		}
		role := volume.Role
		if role == pb.TensorRole_TENSOR_ROLE_UNSPECIFIED {
			role = pb.TensorRole_TENSOR_ROLE_VOLUME
		}
		header := &pb.Tensor{
			Id:        fmt.Sprintf("tensor-%d", place),
			Role:      role,
			Modality:  volume.Modality,
			CaseIndex: uint32(volume.CaseIndex),
			DataType:  dataType,
			Shape:     shape,
			Affine:    volume.Affine,
		}
		payloads = append(payloads, Payload{Header: header, Bytes: bytes})
	}
	return payloads, nil
}

// bytesOf views voxels as bytes; nothing is copied.
func bytesOf(voxels interface{}) (pb.DataType, []byte, int) {
	switch voxels := voxels.(type) {
	case []float32:
		if len(voxels) > 0 {
			return pb.DataType_DATA_TYPE_FLOAT32, unsafe.Slice((*byte)(unsafe.Pointer(&voxels[0])), 4*len(voxels)), len(voxels)
		}
	case []int32:
		if len(voxels) > 0 {
			return pb.DataType_DATA_TYPE_INT32, unsafe.Slice((*byte)(unsafe.Pointer(&voxels[0])), 4*len(voxels)), len(voxels)
		}
	case []int16:
		if len(voxels) > 0 {
			return pb.DataType_DATA_TYPE_INT16, unsafe.Slice((*byte)(unsafe.Pointer(&voxels[0])), 2*len(voxels)), len(voxels)
		}
	case []uint8:
		return pb.DataType_DATA_TYPE_UINT8, voxels, len(voxels)
	}
	return pb.DataType_DATA_TYPE_UNSPECIFIED, nil, 0
}
