package nifti

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	affine := []float64{-2, 0, 0, 10, 0, 2, 0, -8, 0, 0, 3, -12, 0, 0, 0, 1}
	voxels := make([]float32, 24)
	for place := range voxels {
		voxels[place] = float32(place) / 2
	}
	want := &Image{Voxels: voxels, Shape: []int{2, 3, 4}, Affine: affine}
	for _, name := range []string{"map.nii", "map.nii.gz"} {
		path := filepath.Join(t.TempDir(), name)
		if err := Write(path, voxels, want.Shape, affine); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestWhatIsNoNiftiIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text.nii")
	if err := os.WriteFile(path, []byte("no header"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err != ErrUnsupported {
		t.Errorf("got %v", err)
	}
}
