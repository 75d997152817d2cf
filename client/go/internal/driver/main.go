// Command driver runs the Go client through the scenarios of tests/conformance.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strings"
	"time"
	"unsafe"

	"google.golang.org/protobuf/encoding/protojson"

	"voxplain.dev/voxplain"
	pb "voxplain.dev/voxplain/v1"
)

const smallChunk = 1000

type asked struct {
	Server  string
	Spec    json.RawMessage
	Volumes []struct {
		Role     string
		Modality string
		DataType string `json:"data_type"`
		Shape    []int
		Affine   []float64
		File     string
	}
	Upload          string
	TimeoutS        float64 `json:"timeout_s"`
	CancelAfter     string  `json:"cancel_after"`
	CAFile          string  `json:"ca_file"`
	CertificateFile string  `json:"certificate_file"`
	KeyFile         string  `json:"key_file"`
	Token           string
}

type fields = map[string]interface{}

var kinds = map[error]string{
	voxplain.ErrInvalidSpec:        "InvalidSpec",
	voxplain.ErrChecksumMismatch:   "ChecksumMismatch",
	voxplain.ErrModelNotFound:      "ModelNotFound",
	voxplain.ErrUnsupportedByModel: "UnsupportedByModel",
	voxplain.ErrLimitExceeded:      "LimitExceeded",
	voxplain.ErrCheckpointRefused:  "CheckpointRefused",
	voxplain.ErrDeadlinePassed:     "DeadlinePassed",
	voxplain.ErrCancelled:          "Cancelled",
	voxplain.ErrServerUnavailable:  "ServerUnavailable",
	voxplain.ErrUnauthenticated:    "Unauthenticated",
	voxplain.ErrPermissionDenied:   "PermissionDenied",
	voxplain.ErrInternalFault:      "InternalFault",
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var request asked
		must(json.Unmarshal(lines.Bytes(), &request))
		answer(request)
		must(json.NewEncoder(os.Stdout).Encode(fields{"event": "end"}))
	}
}

func answer(request asked) {
	client, err := voxplain.New(request.Server, options(request)...)
	must(err)
	defer client.Close()
	spec := &pb.ExplainSpec{}
	must(protojson.Unmarshal(request.Spec, spec))
	volumes := readVolumes(request)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	start := time.Now()
	if request.TimeoutS > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(request.TimeoutS*float64(time.Second)))
		defer cancel()
	}
	explanation, err := client.Explain(ctx, voxplain.Request{Spec: spec, Volumes: volumes, Chunks: uploads[request.Upload]})
	must(err)
	defer explanation.Close()
	for {
		event, err := explanation.Recv()
		if err == io.EOF {
			return
		}
		if err != nil {
			tell(start, "error", faultFields(err))
			return
		}
		name, told := describe(event)
		tell(start, name, told)
		if name == "progress" && request.CancelAfter == "progress" {
			cancel()
		}
	}
}

func options(request asked) []voxplain.Option {
	var chosen []voxplain.Option
	if request.CAFile != "" {
		pem, err := os.ReadFile(request.CAFile)
		must(err)
		config := &tls.Config{RootCAs: x509.NewCertPool()}
		config.RootCAs.AppendCertsFromPEM(pem)
		if request.CertificateFile != "" {
			certificate, err := tls.LoadX509KeyPair(request.CertificateFile, request.KeyFile)
			must(err)
			config.Certificates = []tls.Certificate{certificate}
		}
		chosen = append(chosen, voxplain.WithTLS(config))
	}
	if request.Token != "" {
		chosen = append(chosen, voxplain.WithToken(request.Token))
	}
	return chosen
}

var uploads = map[string]voxplain.Chunker{
	"interleaved": func(payloads []voxplain.Payload, send func(*pb.TensorChunk) error) error {
		for place, any := 0, true; any; place++ {
			any = false
			for _, payload := range payloads {
				chunks := voxplain.ChunksOf(payload, smallChunk)
				if place >= len(chunks) {
					continue
				}
				any = true
				if err := send(withChecksum(chunks[place], 0)); err != nil {
					return err
				}
			}
		}
		return nil
	},
	"close-early": func(payloads []voxplain.Payload, send func(*pb.TensorChunk) error) error {
		return voxplain.InOrder(payloads[:1], send)
	},
	"wrong-checksum": func(payloads []voxplain.Payload, send func(*pb.TensorChunk) error) error {
		return send(withChecksum(voxplain.ChunksOf(payloads[0], smallChunk)[0], 1))
	},
}

func withChecksum(chunk *pb.TensorChunk, flip uint32) *pb.TensorChunk {
	sum := voxplain.Checksum(chunk.Data) ^ flip
	chunk.Crc32C = &sum
	return chunk
}

func readVolumes(request asked) []voxplain.Volume {
	volumes := make([]voxplain.Volume, 0, len(request.Volumes))
	for _, volume := range request.Volumes {
		raw, err := os.ReadFile(volume.File)
		must(err)
		var voxels interface{}
		switch volume.DataType {
		case "DATA_TYPE_FLOAT32":
			voxels = unsafe.Slice((*float32)(unsafe.Pointer(&raw[0])), len(raw)/4)
		case "DATA_TYPE_INT32":
			voxels = unsafe.Slice((*int32)(unsafe.Pointer(&raw[0])), len(raw)/4)
		case "DATA_TYPE_INT16":
			voxels = unsafe.Slice((*int16)(unsafe.Pointer(&raw[0])), len(raw)/2)
		default:
			voxels = raw
		}
		role := pb.TensorRole(pb.TensorRole_value[volume.Role])
		held := voxplain.Volume{Modality: volume.Modality, Voxels: voxels, Shape: volume.Shape, Affine: volume.Affine, Role: role}
		volumes = append(volumes, held)
	}
	return volumes
}

func describe(event voxplain.Event) (string, fields) {
	switch event := event.(type) {
	case *pb.Accepted:
		return "accepted", fields{"model": event.Model, "version": event.Version}
	case *pb.Prediction:
		return "prediction", fields{"score": event.Score, "target_name": event.TargetName}
	case *pb.Progress:
		return "progress", fields{
			"stage":            strings.TrimPrefix(event.Stage.String(), "STAGE_"),
			"method_key":       event.MethodKey,
			"evaluations_done": event.EvaluationsDone,
			"checkpoint":       len(event.Checkpoint) > 0,
			"bytes_received":   event.BytesReceived,
			"bytes_total":      event.BytesTotal,
		}
	case *voxplain.Map:
		return "map", fields{
			"method_key": event.Header.MethodKey,
			"quantity":   strings.TrimPrefix(event.Header.Quantity.String(), "QUANTITY_"),
			"modalities": event.Header.Modalities,
			"shape":      event.Shape,
			"snapshot":   event.Header.Snapshot,
			"sha256":     event.SHA256,
		}
	case *pb.MethodResult:
		outcome := strings.TrimPrefix(event.Outcome.String(), "OUTCOME_")
		return "result", fields{"method_key": event.MethodKey, "outcome": outcome, "reason": event.Reason}
	case *pb.ExplanationRecord:
		return "record", fields{"maps": len(event.Maps), "model_digest": event.ModelDigest}
	case *voxplain.Resuming:
		return "resuming", fields{
			"reason":          event.Fault.Reason,
			"wait_s":          event.Wait.Seconds(),
			"from_checkpoint": event.FromCheckpoint,
		}
	}
	return "unknown", fields{}
}

func faultFields(err error) fields {
	var fault *voxplain.Error
	if !errors.As(err, &fault) {
		return fields{"kind": "unknown", "reason": err.Error()}
	}
	told := fields{"kind": "VoxplainError", "reason": fault.Reason, "field": fault.Field, "retry_after_s": nil}
	for kind, name := range kinds {
		if errors.Is(err, kind) {
			told["kind"] = name
		}
	}
	if fault.RetryAfter != nil {
		told["retry_after_s"] = fault.RetryAfter.Seconds()
	}
	return told
}

func tell(start time.Time, event string, told fields) {
	told["event"], told["t"] = event, time.Since(start).Seconds()
	must(json.NewEncoder(os.Stdout).Encode(told))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
