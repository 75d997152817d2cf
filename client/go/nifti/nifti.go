// Package nifti reads and writes NIfTI-1 files of one volume each. An array goes as it is; its affine says where it lies.
package nifti

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"strings"
)

const (
	headerBytes = 348
	dataOffset  = 352
)

// ErrUnsupported is returned for what is no little-endian NIfTI-1 volume in one file.
var ErrUnsupported = errors.New("the file is no little-endian NIfTI-1 volume in one piece, or its type is not supported; convert it")

// Image is one volume of a file.
type Image struct {
	// Voxels in C order (the last axis varies fastest), scaled where the file scales them: []int16, []uint8 or []float32.
	Voxels interface{}
	Shape  []int
	// Affine is row-major 4x4, RAS+, mm; nil: the file states none.
	Affine []float64
}

// Read reads a .nii or .nii.gz.
func Read(path string) (*Image, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		if data, err = io.ReadAll(unpacked); err != nil {
			return nil, err
		}
	}
	if len(data) < dataOffset || binary.LittleEndian.Uint32(data) != headerBytes || string(data[344:347]) != "n+1" {
		return nil, ErrUnsupported
	}
	rank := integer(data, 40)
	for rank > 3 && integer(data, 40+2*rank) == 1 {
		rank--
	}
	if rank < 2 || rank > 3 {
		return nil, ErrUnsupported
	}
	shape, count := make([]int, rank), 1
	for axis := range shape {
		shape[axis] = integer(data, 42+2*axis)
		count *= shape[axis]
	}
	voxels, err := readVoxels(data, shape, count)
	if err != nil {
		return nil, err
	}
	return &Image{Voxels: voxels, Shape: shape, Affine: readAffine(data)}, nil
}

// Write writes a map as float32 with its affine, which may be nil; gzipped where the path ends with .gz.
func Write(path string, voxels []float32, shape []int, affine []float64) error {
	data := make([]byte, dataOffset+4*len(voxels))
	binary.LittleEndian.PutUint32(data, headerBytes)
	dims := append([]int{len(shape)}, shape...)
	for axis := 0; axis < 8; axis++ {
		edge, step := 1, 1.0
		if axis < len(dims) {
			edge = dims[axis]
		}
		if axis > 0 && axis <= 3 && len(affine) == 16 {
			step = math.Hypot(math.Hypot(affine[axis-1], affine[axis+3]), affine[axis+7])
		}
		binary.LittleEndian.PutUint16(data[40+2*axis:], uint16(edge))
		putFloat(data, 76+4*axis, step)
	}
	binary.LittleEndian.PutUint16(data[70:], 16) // float32
	binary.LittleEndian.PutUint16(data[72:], 32) // bits of a voxel
	putFloat(data, 108, dataOffset)
	putFloat(data, 112, 1) // slope
	data[123] = 2          // mm
	if len(affine) == 16 {
		binary.LittleEndian.PutUint16(data[254:], 2) // sform: aligned to something
		for place, value := range affine[:12] {
			putFloat(data, 280+4*place, value)
		}
	}
	copy(data[344:], "n+1\x00")
	each(shape, func(c, fortran int) { putFloat(data, dataOffset+4*fortran, float64(voxels[c])) })
	if strings.HasSuffix(path, ".gz") {
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		if _, err := writer.Write(data); err != nil {
			return err
		}
		if err := writer.Close(); err != nil {
			return err
		}
		data = packed.Bytes()
	}
	return os.WriteFile(path, data, 0o644)
}

// each gives, for every voxel, its place in C order and in the file, whose first axis varies fastest.
func each(shape []int, visit func(c, fortran int)) {
	nz := 1
	if len(shape) > 2 {
		nz = shape[2]
	}
	c := 0
	for x := 0; x < shape[0]; x++ {
		for y := 0; y < shape[1]; y++ {
			for z := 0; z < nz; z++ {
				visit(c, x+shape[0]*(y+shape[1]*z))
				c++
			}
		}
	}
}

func readVoxels(data []byte, shape []int, count int) (interface{}, error) {
	slope, intercept, offset := float(data, 112), float(data, 116), int(float(data, 108))
	scaled := slope != 0 && !math.IsNaN(slope) && !math.IsInf(slope, 0) && (slope != 1 || intercept != 0)
	code := integer(data, 70)
	size := map[int]int{2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 512: 2}[code]
	if size == 0 || count <= 0 || offset < headerBytes || len(data) < offset+count*size {
		return nil, ErrUnsupported
	}
	stored := data[offset:]
	if code == 2 && !scaled {
		out := make([]uint8, count)
		each(shape, func(c, fortran int) { out[c] = stored[fortran] })
		return out, nil
	}
	if code == 4 && !scaled {
		out := make([]int16, count)
		each(shape, func(c, fortran int) { out[c] = int16(binary.LittleEndian.Uint16(stored[2*fortran:])) })
		return out, nil
	}
	if !scaled {
		slope, intercept = 1, 0
	}
	out := make([]float32, count)
	each(shape, func(c, fortran int) { out[c] = float32(value(stored[size*fortran:], code)*slope + intercept) })
	return out, nil
}

func value(stored []byte, code int) float64 {
	switch code {
	case 2:
		return float64(stored[0])
	case 4:
		return float64(int16(binary.LittleEndian.Uint16(stored)))
	case 8:
		return float64(int32(binary.LittleEndian.Uint32(stored)))
	case 16:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(stored)))
	case 64:
		return math.Float64frombits(binary.LittleEndian.Uint64(stored))
	default:
		return float64(binary.LittleEndian.Uint16(stored))
	}
}

func readAffine(data []byte) []float64 {
	affine := make([]float64, 16)
	affine[15] = 1
	if integer(data, 254) > 0 {
		for place := 0; place < 12; place++ {
			affine[place] = float(data, 280+4*place)
		}
		return affine
	}
	if integer(data, 252) <= 0 {
		return nil
	}
	// The quaternion form: rotation times spacing, the third axis flipped where pixdim[0] is -1.
	b, c, d := float(data, 256), float(data, 260), float(data, 264)
	a := math.Sqrt(math.Max(0, 1-(b*b+c*c+d*d)))
	dx, dy, dz := float(data, 80), float(data, 84), float(data, 88)
	if float(data, 76) < 0 {
		dz = -dz
	}
	rows := [][]float64{
		{(a*a + b*b - c*c - d*d) * dx, 2 * (b*c - a*d) * dy, 2 * (b*d + a*c) * dz, float(data, 268)},
		{2 * (b*c + a*d) * dx, (a*a + c*c - b*b - d*d) * dy, 2 * (c*d - a*b) * dz, float(data, 272)},
		{2 * (b*d - a*c) * dx, 2 * (c*d + a*b) * dy, (a*a + d*d - c*c - b*b) * dz, float(data, 276)},
	}
	for place, row := range rows {
		copy(affine[4*place:], row)
	}
	return affine
}

func integer(data []byte, offset int) int {
	return int(int16(binary.LittleEndian.Uint16(data[offset:])))
}

func float(data []byte, offset int) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(data[offset:])))
}

func putFloat(data []byte, offset int, value float64) {
	binary.LittleEndian.PutUint32(data[offset:], math.Float32bits(float32(value)))
}
