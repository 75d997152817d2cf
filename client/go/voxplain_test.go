package voxplain

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "voxplain.dev/voxplain/v1"
)

func TestChecksumIsThatOfRFC3720(t *testing.T) {
	if sum := Checksum(make([]byte, 32)); sum != 0x8a9136aa {
		t.Errorf("CRC-32C of 32 zeros is %x", sum)
	}
}

func TestTensorIsCutIntoChunksOfOneMebibyteThatAreViews(t *testing.T) {
	voxels := make([]float32, MaxChunkBytes/2+1)
	payloads, err := makePayloads([]Volume{{Modality: "t1", Voxels: voxels, Shape: []int{len(voxels), 1}}})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	err = InOrder(payloads, func(chunk *pb.TensorChunk) error {
		if chunk.OffsetBytes != uint64(len(sizes)*MaxChunkBytes) || *chunk.Crc32C != Checksum(chunk.Data) {
			t.Errorf("chunk %d has offset %d", len(sizes), chunk.OffsetBytes)
		}
		if &chunk.Data[0] != &payloads[0].Bytes[chunk.OffsetBytes] {
			t.Error("bytes were copied")
		}
		sizes = append(sizes, len(chunk.Data))
		return nil
	})
	if err != nil || len(sizes) != 3 || sizes[2] != 4 {
		t.Errorf("sizes %v, error %v", sizes, err)
	}
}

func TestVolumesThatCannotBeAreRefusedBeforeAnythingIsSent(t *testing.T) {
	for reason, volume := range map[string]Volume{
		"SHAPE_MISMATCH":    {Voxels: make([]float32, 6), Shape: []int{2, 2}},
		"DTYPE_UNSUPPORTED": {Voxels: make([]float64, 6), Shape: []int{2, 3}},
		"AFFINE_INVALID":    {Voxels: make([]int16, 6), Shape: []int{2, 3}, Affine: []float64{1}},
	} {
		_, err := makePayloads([]Volume{volume})
		var fault *Error
		if !errors.As(err, &fault) || fault.Reason != reason || !errors.Is(err, ErrInvalidSpec) {
			t.Errorf("%s: got %v", reason, err)
		}
	}
}

func TestMethodIsMadeByItsName(t *testing.T) {
	method, err := Method("integrated-gradients")
	if err != nil || method.GetIntegratedGradients() == nil {
		t.Errorf("got %v, %v", method, err)
	}
	if _, err := Method("magic"); !errors.Is(err, ErrInvalidSpec) {
		t.Errorf("got %v", err)
	}
}

func TestTypedStatusKeepsReasonFieldAndDelay(t *testing.T) {
	told, err := status.New(codes.ResourceExhausted, "full").WithDetails(
		&errdetails.ErrorInfo{Reason: "QUEUE_FULL", Domain: "voxplain"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "a"}, {Field: "b"}}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(5 * time.Second)},
	)
	if err != nil {
		t.Fatal(err)
	}
	fault := translate(context.Background(), told.Err())
	if !errors.Is(fault, ErrLimitExceeded) || fault.Reason != "QUEUE_FULL" || fault.Field != "a, b" || *fault.RetryAfter != 5*time.Second {
		t.Errorf("got %+v", fault)
	}
}

func TestStatusWithoutOurDetailsComesFromTheNetwork(t *testing.T) {
	fault := translate(context.Background(), status.Error(codes.Internal, "stream reset"))
	if fault.Reason != "CONNECTION_LOST" || !errors.Is(fault, ErrServerUnavailable) {
		t.Errorf("got %+v", fault)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	fault = translate(ctx, status.Error(codes.Canceled, "reset"))
	if !errors.Is(fault, ErrCancelled) || !errors.Is(fault, context.Canceled) {
		t.Errorf("got %+v", fault)
	}
}

func answer(t *testing.T, talk *conversation, event *pb.ExplainResponse) Event {
	t.Helper()
	news, err := talk.receive(event)
	if err != nil {
		t.Fatal(err)
	}
	return news
}

func accepted(digest string) *pb.ExplainResponse {
	return &pb.ExplainResponse{Event: &pb.ExplainResponse_Accepted{Accepted: &pb.Accepted{Version: "3", ModelDigest: digest}}}
}

func ended(outcome pb.Outcome) *pb.ExplainResponse {
	result := &pb.MethodResult{MethodKey: "gradient", Outcome: outcome}
	return &pb.ExplainResponse{Event: &pb.ExplainResponse_MethodResult{MethodResult: result}}
}

func sendMap(t *testing.T, talk *conversation) *Map {
	t.Helper()
	header := &pb.Map{
		Id: "m", MethodKey: "gradient", Quantity: pb.Quantity_QUANTITY_ATTRIBUTION, Modalities: []string{"t1"},
		DataType: pb.DataType_DATA_TYPE_FLOAT32, Shape: []uint32{1, 2}, SizeBytes: 8,
	}
	answer(t, talk, &pb.ExplainResponse{Event: &pb.ExplainResponse_Map{Map: header}})
	_, data, _ := bytesOf([]float32{1, float32(math.Pi)})
	sum := Checksum(data)
	chunk := &pb.TensorChunk{TensorId: "m", Data: data, Crc32C: &sum}
	news, _ := answer(t, talk, &pb.ExplainResponse{Event: &pb.ExplainResponse_Chunk{Chunk: chunk}}).(*Map)
	return news
}

func record(sha256 string) *pb.ExplainResponse {
	held := &pb.MapDigest{MethodKey: "gradient", Quantity: pb.Quantity_QUANTITY_ATTRIBUTION, Modalities: []string{"t1"}, Sha256: sha256}
	summary := &pb.Summary{Record: &pb.ExplanationRecord{Maps: []*pb.MapDigest{held}}}
	return &pb.ExplainResponse{Event: &pb.ExplainResponse_Summary{Summary: summary}}
}

var lost = &Error{Code: codes.Unavailable, Reason: connectionLost}

func TestResumedCallGoesOnFromTheCheckpointAndTellsNothingTwice(t *testing.T) {
	talk := newConversation(&pb.ExplainSpec{}, DefaultRetryPolicy())
	talk.begin()
	if answer(t, talk, accepted("d")) == nil || sendMap(t, talk) == nil || answer(t, talk, ended(pb.Outcome_OUTCOME_COMPLETED)) == nil {
		t.Fatal("news were not told")
	}
	progress := &pb.Progress{Checkpoint: []byte("half")}
	answer(t, talk, &pb.ExplainResponse{Event: &pb.ExplainResponse_Progress{Progress: progress}})
	resuming, err := talk.recover(lost)
	if err != nil || !resuming.FromCheckpoint {
		t.Fatalf("got %+v, %v", resuming, err)
	}
	if spec := talk.begin(); string(spec.Checkpoint) != "half" || spec.Version != "3" {
		t.Errorf("the next call asks %v", spec)
	}
	again := sendMap(t, talk)
	if answer(t, talk, accepted("d")) != nil || again != nil || answer(t, talk, ended(pb.Outcome_OUTCOME_COMPLETED)) != nil {
		t.Error("something was told twice")
	}
	if _, err := talk.receive(accepted("other")); !errors.Is(err, ErrUnsupportedByModel) {
		t.Errorf("another model: %v", err)
	}
}

func TestRecordWithOtherDigestsIsRefused(t *testing.T) {
	talk := newConversation(&pb.ExplainSpec{}, DefaultRetryPolicy())
	talk.begin()
	received := sendMap(t, talk)
	if _, err := talk.receive(record("0")); !errors.Is(err, ErrChecksumMismatch) {
		t.Errorf("got %v", err)
	}
	if _, err := talk.receive(record(received.SHA256)); err != nil || talk.record == nil {
		t.Errorf("got %v", err)
	}
}

func TestDrainedMethodIsAskedForAgain(t *testing.T) {
	talk := newConversation(&pb.ExplainSpec{}, DefaultRetryPolicy())
	talk.begin()
	received := sendMap(t, talk)
	answer(t, talk, ended(pb.Outcome_OUTCOME_DRAINED))
	if answer(t, talk, record(received.SHA256)) != nil || talk.record != nil {
		t.Error("the record of a drained call is not the last")
	}
	talk.begin()
	if sendMap(t, talk) == nil {
		t.Error("the map belongs to another result and is news")
	}
}

func TestPatienceEnds(t *testing.T) {
	policy := DefaultRetryPolicy()
	delay := 5 * time.Second
	full := &Error{Code: codes.ResourceExhausted, RetryAfter: &delay}
	if wait, again := policy.wait(full, 1, true); wait != delay || !again {
		t.Errorf("got %v, %v", wait, again)
	}
	if _, again := policy.wait(full, policy.Attempts+1, true); again {
		t.Error("attempts do not end")
	}
	if _, again := policy.wait(lost, 2, false); again {
		t.Error("a wrong address is tried for too long")
	}
	if _, again := policy.wait(&Error{Code: codes.ResourceExhausted}, 1, true); again {
		t.Error("no delay, no waiting")
	}
}

func TestServerThatIsNotThereEndsAsConnectionLost(t *testing.T) {
	policy := DefaultRetryPolicy()
	policy.FirstWait = time.Millisecond
	client, err := New("127.0.0.1:1", WithRetry(policy))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	method, _ := Method("gradient")
	spec := &pb.ExplainSpec{Model: "net", Methods: []*pb.Method{method}}
	explanation, err := client.Explain(context.Background(), Request{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	defer explanation.Close()
	if _, err := explanation.Result(); !errors.Is(err, ErrServerUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestATokenGoesToAnotherHostWithTLSOnly(t *testing.T) {
	for _, server := range []string{"explain.example:50051", "10.0.0.7:50051", "127.0.0.1.example:1", "[2001:db8::1]:1", "dns:///a:1"} {
		_, err := New(server, WithToken("secret"))
		var fault *Error
		if !errors.As(err, &fault) || fault.Reason != "ACCESS_INVALID" || !errors.Is(err, ErrInvalidSpec) {
			t.Errorf("%s: got %v", server, err)
		}
	}
	for _, server := range []string{"localhost:50051", "127.0.0.1:50051", "127.8.9.1:1", "[::1]:50051", "dns:///localhost:1", "unix:/a"} {
		if !isThisHost(server) {
			t.Errorf("%s is this host", server)
		}
	}
	client, err := New("explain.example:50051", WithToken("secret"), WithTLS(&tls.Config{MinVersion: tls.VersionTLS12}))
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}
