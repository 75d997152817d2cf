package voxplain

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "voxplain.dev/voxplain/v1"
)

// Resuming tells that the call broke or must wait; it will be made again by itself.
type Resuming struct {
	Fault *Error
	// Attempt counts from 1 since the last advance.
	Attempt int
	Wait    time.Duration
	// FromCheckpoint is false where the compute starts over.
	FromCheckpoint bool
}

// Event is one of *pb.Accepted, *pb.Prediction, *pb.Progress, *Map, *pb.MethodResult, *pb.ExplanationRecord and *Resuming.
type Event interface{}

type advance struct {
	ended int
	done  uint64
}

func (a advance) beyond(other advance) bool {
	return a.ended > other.ended || (a.ended == other.ended && a.done > other.done)
}

// conversation is one explanation over as many calls as it takes. It knows no network.
type conversation struct {
	spec       *pb.ExplainSpec
	policy     RetryPolicy
	checkpoint []byte
	accepted   *pb.Accepted
	prediction *pb.Prediction
	record     *pb.ExplanationRecord
	results    map[string]*pb.MethodResult
	maps       map[string]*Map
	delivered  map[string]string
	inCall     map[string]string
	assembly   assembly
	attempt    int
	advance    advance
	atFault    advance
	startOver  bool
}

func newConversation(spec *pb.ExplainSpec, policy RetryPolicy) *conversation {
	return &conversation{
		spec:       spec,
		policy:     policy,
		checkpoint: spec.Checkpoint,
		results:    map[string]*pb.MethodResult{},
		maps:       map[string]*Map{},
		delivered:  map[string]string{},
	}
}

// begin gives the spec to send in the next call. A resumed call goes on from the last checkpoint, on the same version.
func (c *conversation) begin() *pb.ExplainSpec {
	c.assembly = assembly{}
	c.inCall = map[string]string{}
	spec := proto.Clone(c.spec).(*pb.ExplainSpec)
	spec.Checkpoint = c.checkpoint
	if c.accepted != nil {
		spec.Version = c.accepted.Version
	}
	return spec
}

// receive takes one message of the server and gives what is new in it, nil where nothing is.
func (c *conversation) receive(response *pb.ExplainResponse) (Event, error) {
	switch event := response.Event.(type) {
	case *pb.ExplainResponse_Accepted:
		return c.takeAccepted(event.Accepted)
	case *pb.ExplainResponse_Prediction:
		first := c.prediction == nil
		c.prediction = event.Prediction
		if first {
			return event.Prediction, nil
		}
	case *pb.ExplainResponse_Progress:
		if len(event.Progress.Checkpoint) > 0 {
			c.checkpoint = event.Progress.Checkpoint
		}
		c.note(advance{c.ended(), event.Progress.EvaluationsDone})
		return event.Progress, nil
	case *pb.ExplainResponse_Map:
		return nil, c.assembly.begin(event.Map)
	case *pb.ExplainResponse_Chunk:
		received, err := c.assembly.add(event.Chunk)
		if received == nil || err != nil {
			return nil, err
		}
		return c.takeMap(received), nil
	case *pb.ExplainResponse_MethodResult:
		return c.takeResult(event.MethodResult), nil
	case *pb.ExplainResponse_Summary:
		return c.takeRecord(event.Summary.GetRecord())
	}
	return nil, nil
}

// recover decides what happens after a call ended before the record came; it returns the fault where trying again would not help.
func (c *conversation) recover(fault *Error) (*Resuming, error) {
	if fault.Code == codes.Aborted && len(c.checkpoint) > 0 && !c.startOver {
		c.startOver = true
		c.checkpoint = nil
		return &Resuming{Fault: fault, Attempt: 1}, nil
	}
	if c.advance.beyond(c.atFault) {
		c.attempt = 0
	}
	c.atFault = c.advance
	c.attempt++
	wait, again := c.policy.wait(fault, c.attempt, c.accepted != nil)
	if !again {
		return nil, fault
	}
	return &Resuming{Fault: fault, Attempt: c.attempt, Wait: wait, FromCheckpoint: len(c.checkpoint) > 0}, nil
}

func (c *conversation) takeAccepted(accepted *pb.Accepted) (Event, error) {
	before := c.accepted
	if before != nil && before.ModelDigest != accepted.ModelDigest {
		message := "the server now holds another model of this version: ask anew"
		return nil, &Error{Code: codes.FailedPrecondition, Reason: "MODEL_CHANGED", Message: message, Field: "model"}
	}
	c.accepted = accepted
	if before != nil {
		return nil, nil
	}
	return accepted, nil
}

func (c *conversation) takeMap(received *Map) Event {
	if received.Header.Snapshot {
		return received
	}
	key := mapKey(received.Header.MethodKey, received.Header.Quantity, received.Header.Modalities)
	c.inCall[key] = received.SHA256
	c.maps[key] = received
	// A resumed call sends the maps of ended methods again; only bytes that are new are news.
	if c.delivered[key] == received.SHA256 {
		return nil
	}
	c.delivered[key] = received.SHA256
	return received
}

func (c *conversation) takeResult(result *pb.MethodResult) Event {
	before := c.results[result.MethodKey]
	c.results[result.MethodKey] = result
	c.note(advance{ended: c.ended()})
	if result.Outcome == pb.Outcome_OUTCOME_DRAINED {
		// What comes for it next is news also where its bytes are the same: it belongs to another result.
		for key := range c.delivered {
			if strings.HasPrefix(key, result.MethodKey+"\n") {
				delete(c.delivered, key)
			}
		}
	}
	if before != nil && before.Outcome == result.Outcome {
		return nil
	}
	return result
}

func (c *conversation) takeRecord(record *pb.ExplanationRecord) (Event, error) {
	recorded := 0
	for _, held := range record.GetMaps() {
		if held.Quantity == pb.Quantity_QUANTITY_LABELS {
			continue
		}
		recorded++
		if c.inCall[mapKey(held.MethodKey, held.Quantity, held.Modalities)] != held.Sha256 {
			recorded = -1
			break
		}
	}
	if recorded != len(c.inCall) {
		message := "the maps that came are not those of the record: ask again"
		return nil, &Error{Code: codes.DataLoss, Reason: "MAP_DIGEST_MISMATCH", Message: message, Field: "record.maps"}
	}
	if c.ended() < len(c.results) && c.policy.Attempts > 0 {
		// The server is going away; another goes on from the checkpoint: this record is not the last.
		return nil, nil
	}
	for key := range c.maps {
		if _, came := c.inCall[key]; !came {
			delete(c.maps, key)
		}
	}
	c.record = record
	return record, nil
}

// ended counts the methods that are done with.
func (c *conversation) ended() int {
	count := 0
	for _, result := range c.results {
		if result.Outcome != pb.Outcome_OUTCOME_DRAINED {
			count++
		}
	}
	return count
}

func (c *conversation) note(reached advance) {
	if reached.beyond(c.advance) {
		c.advance = reached
	}
}

func mapKey(methodKey string, quantity pb.Quantity, modalities []string) string {
	return fmt.Sprintf("%s\n%d\n%s", methodKey, quantity, strings.Join(modalities, "\n"))
}
