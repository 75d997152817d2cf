// Command explaindemo explains one case of the demo and writes a NIfTI file for each map.
//
//	voxplain-server --models examples/glioma_demo/models &
//	client/go/build/explain_demo 127.0.0.1:50051 examples/glioma_demo/cases/case-1 out
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"voxplain.dev/voxplain"
	"voxplain.dev/voxplain/nifti"
	pb "voxplain.dev/voxplain/v1"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: explain_demo HOST:PORT CASE-FOLDER OUT-FOLDER")
	}
	if err := explain(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func explain(server, folder, out string) error {
	spec := &pb.ExplainSpec{Model: "glioma-demo"}
	for _, name := range []string{"grad-cam", "feature-ablation"} {
		method, err := voxplain.Method(name)
		if err != nil {
			return err
		}
		spec.Methods = append(spec.Methods, method)
	}
	var volumes []voxplain.Volume
	for _, modality := range []string{"t1", "t1c", "t2", "flair"} {
		image, err := nifti.Read(filepath.Join(folder, modality+".nii.gz"))
		if err != nil {
			return err
		}
		volumes = append(volumes, voxplain.Volume{Modality: modality, Voxels: image.Voxels, Shape: image.Shape, Affine: image.Affine})
	}
	client, err := voxplain.New(server)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	explanation, err := client.Explain(ctx, voxplain.Request{Spec: spec, Volumes: volumes})
	if err != nil {
		return err
	}
	defer explanation.Close()
	for {
		event, err := explanation.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch event := event.(type) {
		case *pb.Prediction:
			fmt.Printf("the model says %s, score %.2f\n", event.TargetName, event.Score)
		case *pb.Progress:
			fmt.Println(event.Stage, event.MethodKey, event.EvaluationsDone)
		case *voxplain.Map:
			if err := write(out, event); err != nil {
				return err
			}
		case *pb.MethodResult:
			fmt.Println(event.MethodKey, event.Outcome, event.Reason)
		case *voxplain.Resuming:
			fmt.Printf("%v; on again in %v\n", event.Fault, event.Wait)
		}
	}
}

func write(out string, received *voxplain.Map) error {
	name := "shared"
	if len(received.Header.Modalities) == 1 {
		name = received.Header.Modalities[0]
	}
	folder := filepath.Join(out, received.Header.MethodKey)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return nifti.Write(filepath.Join(folder, name+".nii.gz"), received.Voxels, received.Shape, received.Affine)
}
