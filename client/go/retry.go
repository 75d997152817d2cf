package voxplain

import (
	"math/rand"
	"time"

	"google.golang.org/grpc/codes"
)

// RetryPolicy tells when a broken call is made again. Explaining changes nothing on the server, so doing it again is always safe.
type RetryPolicy struct {
	// Attempts is how many calls are made again in a row without any advance between them; 0: none.
	Attempts int
	// FirstAttempts is the same before the server has answered anything at all: its address may be wrong.
	FirstAttempts int
	// FirstWait is doubled each time and shortened at random by up to a half.
	FirstWait time.Duration
	// LongestWait is the longest such wait. A delay that the server names is kept in full up to Patience.
	LongestWait time.Duration
	// Patience is the longest delay that a server may ask for before it is given up.
	Patience time.Duration
}

// DefaultRetryPolicy is what a client does unless it is told otherwise.
func DefaultRetryPolicy() RetryPolicy {
	return RetryPolicy{
		Attempts:      6,
		FirstAttempts: 1,
		FirstWait:     500 * time.Millisecond,
		LongestWait:   15 * time.Second,
		Patience:      2 * time.Minute,
	}
}

// wait is how long to wait before the call is made again, and whether it shall be. attempt counts from 1 since the last advance.
func (p RetryPolicy) wait(fault *Error, attempt int, answered bool) (time.Duration, bool) {
	full := fault.Code == codes.ResourceExhausted && fault.RetryAfter != nil
	if fault.Code != codes.Unavailable && !full {
		return 0, false
	}
	allowed := p.Attempts
	if fault.Reason == connectionLost && !answered && p.FirstAttempts < allowed {
		allowed = p.FirstAttempts
	}
	if attempt > allowed || (fault.RetryAfter != nil && *fault.RetryAfter > p.Patience) {
		return 0, false
	}
	backoff := p.FirstWait
	for doubled := 1; doubled < attempt && backoff < p.LongestWait; doubled++ {
		backoff *= 2
	}
	if backoff > p.LongestWait {
		backoff = p.LongestWait
	}
	// Many clients that lost one server must not all come back at one moment.
	backoff = time.Duration(float64(backoff) * (0.5 + rand.Float64()/2))
	if fault.RetryAfter != nil && *fault.RetryAfter > backoff {
		backoff = *fault.RetryAfter
	}
	return backoff, true
}
