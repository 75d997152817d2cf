package voxplain

import (
	"crypto/sha256"
	"encoding/hex"
	"unsafe"

	"google.golang.org/grpc/codes"

	pb "voxplain.dev/voxplain/v1"
)

// Map is a whole map.
type Map struct {
	// Header has method, quantity, modalities, grid, and whether it is a snapshot.
	Header *pb.Map
	// Voxels in C order. Values by label are spread over the voxels already.
	Voxels []float32
	// Shape has the voxels along each axis.
	Shape []int
	// Affine is as the client sent it; empty where it sent none.
	Affine []float64
	// SHA256 of the map's bytes, lower-case hexadecimal, as the record holds it.
	SHA256 string
}

// labelMap is what values by label are spread over.
type labelMap struct {
	header *pb.Map
	labels []int32
}

// assembly puts the maps of one call together and checks every byte on the way.
type assembly struct {
	header   *pb.Map
	bytes    []byte
	received int
	labels   map[string]labelMap
}

func (a *assembly) begin(header *pb.Map) error {
	if a.header != nil {
		return refusal("MAP_INCOMPLETE", "the server began a map before the last was whole", header.MethodKey)
	}
	size := uint64(4)
	for _, edge := range header.Shape {
		size *= uint64(edge)
	}
	float := header.DataType == pb.DataType_DATA_TYPE_FLOAT32
	known := float != (header.Quantity == pb.Quantity_QUANTITY_LABELS) && (float || header.DataType == pb.DataType_DATA_TYPE_INT32)
	if !known || size == 0 || size != header.SizeBytes {
		return refusal("MAP_SIZE", "the map's size and shape do not agree", header.MethodKey)
	}
	// Made of words, so that it is aligned for the voxels that it is viewed as.
	words := make([]uint32, size/4)
	a.header, a.bytes, a.received = header, unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size), 0
	return nil
}

// add takes a chunk of the map announced last; the map, once it is whole and not labels.
func (a *assembly) add(chunk *pb.TensorChunk) (*Map, error) {
	header, length := a.header, len(chunk.Data)
	fits := length > 0 && length <= MaxChunkBytes && a.received+length <= len(a.bytes)
	if header == nil || chunk.TensorId != header.Id || chunk.OffsetBytes != uint64(a.received) || !fits {
		return nil, refusal("CHUNK_UNEXPECTED", "the server sent a chunk that does not belong here", "chunk")
	}
	if chunk.Crc32C != nil && Checksum(chunk.Data) != *chunk.Crc32C {
		message := "the bytes were changed on their way; ask again"
		return nil, &Error{Code: codes.DataLoss, Reason: "CHECKSUM_MISMATCH", Message: message, Field: header.MethodKey}
	}
	copy(a.bytes[a.received:], chunk.Data)
	a.received += length
	if a.received < len(a.bytes) {
		return nil, nil
	}
	a.header = nil
	count := len(a.bytes) / 4
	if header.Quantity == pb.Quantity_QUANTITY_LABELS {
		if a.labels == nil {
			a.labels = map[string]labelMap{}
		}
		a.labels[header.Id] = labelMap{header, unsafe.Slice((*int32)(unsafe.Pointer(&a.bytes[0])), count)}
		return nil, nil
	}
	digest := sha256.Sum256(a.bytes)
	voxels, grid := unsafe.Slice((*float32)(unsafe.Pointer(&a.bytes[0])), count), header
	if header.LabelsId != "" {
		held, known := a.labels[header.LabelsId]
		if !known {
			return nil, refusal("MAP_LABELS", "the server sent values whose labels are not there", header.MethodKey)
		}
		spread, err := spreadOver(held.labels, voxels, header.MethodKey)
		if err != nil {
			return nil, err
		}
		voxels, grid = spread, held.header
	}
	shape := make([]int, 0, len(grid.Shape))
	for _, edge := range grid.Shape {
		shape = append(shape, int(edge))
	}
	return &Map{Header: header, Voxels: voxels, Shape: shape, Affine: grid.Affine, SHA256: hex.EncodeToString(digest[:])}, nil
}

// spreadOver makes one value for each voxel of one for each label.
func spreadOver(labels []int32, values []float32, field string) ([]float32, error) {
	voxels := make([]float32, len(labels))
	for place, label := range labels {
		if label < 0 || int(label) >= len(values) {
			return nil, refusal("MAP_LABELS", "the server sent values whose labels are not there", field)
		}
		voxels[place] = values[label]
	}
	return voxels, nil
}
