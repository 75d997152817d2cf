package voxplain

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc/codes"

	pb "voxplain.dev/voxplain/v1"
)

// Explanation is a running explanation. It is not for two goroutines at once.
type Explanation struct {
	ctx          context.Context
	cancel       context.CancelFunc
	stub         pb.ExplainServiceClient
	payloads     []Payload
	chunks       Chunker
	conversation *conversation
	stream       pb.ExplainService_ExplainClient
	endCall      context.CancelFunc
	wait         time.Duration
	err          error
}

// Result is all that an explanation gave, put together.
type Result struct {
	Accepted   *pb.Accepted
	Prediction *pb.Prediction
	// Record reproduces the maps.
	Record *pb.ExplanationRecord
	// Results by method key: outcome, importance, gap, standard error, times.
	Results map[string]*pb.MethodResult
	// Maps are the final ones, of all quantities.
	Maps []*Map
}

// Map is the attribution map of a method for a modality; nil where there is none.
func (r *Result) Map(methodKey, modality string) *Map {
	for _, held := range r.Maps {
		if held.Header.MethodKey != methodKey || held.Header.Quantity != pb.Quantity_QUANTITY_ATTRIBUTION {
			continue
		}
		for _, name := range held.Header.Modalities {
			if name == modality {
				return held
			}
		}
	}
	return nil
}

// Recv waits for the next event. It returns io.EOF after the record, and an *Error where the call failed for good. A lost connection
// resumes by itself, told by a *Resuming event.
func (e *Explanation) Recv() (Event, error) {
	for e.err == nil {
		event, err := e.next()
		if err != nil {
			e.end(err)
			break
		}
		if event != nil {
			return event, nil
		}
	}
	return nil, e.err
}

// Result waits for the end and returns everything.
func (e *Explanation) Result() (*Result, error) {
	for {
		if _, err := e.Recv(); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	c := e.conversation
	result := &Result{Accepted: c.accepted, Prediction: c.prediction, Record: c.record, Results: c.results}
	if c.record.Prediction != nil {
		// Its plans are those that were computed; the one that came early had to estimate some.
		result.Prediction = c.record.Prediction
	}
	for _, held := range c.record.Maps {
		if received := c.maps[mapKey(held.MethodKey, held.Quantity, held.Modalities)]; received != nil {
			result.Maps = append(result.Maps, received)
		}
	}
	return result, nil
}

// Close ends the explanation; where it has not ended yet, the server stops computing within one batch.
func (e *Explanation) Close() {
	if e.err == nil {
		e.end(&Error{Code: codes.Canceled, Reason: "CANCELLED", Message: "the explanation was closed"})
	}
}

func (e *Explanation) end(err error) {
	e.err = err
	e.hangUp()
	e.cancel()
}

// next makes a step: a call is begun, or one message of it is taken.
func (e *Explanation) next() (Event, error) {
	if e.stream == nil {
		if e.conversation.record != nil {
			return nil, io.EOF
		}
		if err := e.sleep(); err != nil {
			return nil, translate(e.ctx, err)
		}
		if err := e.dial(); err != nil {
			return e.recover(translate(e.ctx, err))
		}
	}
	response, err := e.stream.Recv()
	if err == nil {
		var event Event
		if event, err = e.conversation.receive(response); err == nil {
			return event, nil
		}
	}
	e.hangUp()
	if e.conversation.record != nil {
		return nil, io.EOF
	}
	if err == io.EOF {
		return e.recover(&Error{Code: codes.Unavailable, Reason: connectionLost, Message: "the stream ended before the record"})
	}
	return e.recover(translate(e.ctx, err))
}

func (e *Explanation) recover(fault *Error) (Event, error) {
	resuming, err := e.conversation.recover(fault)
	if err != nil {
		return nil, err
	}
	e.wait = resuming.Wait
	return resuming, nil
}

func (e *Explanation) sleep() error {
	timer := time.NewTimer(e.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return e.ctx.Err()
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

func (e *Explanation) dial() error {
	ctx, endCall := context.WithCancel(e.ctx)
	stream, err := e.stub.Explain(ctx)
	if err != nil {
		endCall()
		return err
	}
	e.stream, e.endCall = stream, endCall
	go upload(stream, e.conversation.begin(), e.payloads, e.chunks)
	return nil
}

func (e *Explanation) hangUp() {
	if e.endCall != nil {
		// After a fault of ours, and when the caller stops, the server must not go on computing.
		e.endCall()
	}
	e.stream, e.endCall = nil, nil
}

// upload sends the case. Its errors are told by Recv, with the server's own status.
func upload(stream pb.ExplainService_ExplainClient, spec *pb.ExplainSpec, payloads []Payload, chunks Chunker) {
	if stream.Send(&pb.ExplainRequest{Message: &pb.ExplainRequest_Spec{Spec: spec}}) != nil {
		return
	}
	err := chunks(payloads, func(chunk *pb.TensorChunk) error {
		return stream.Send(&pb.ExplainRequest{Message: &pb.ExplainRequest_Chunk{Chunk: chunk}})
	})
	if err == nil {
		_ = stream.CloseSend()
	}
}
