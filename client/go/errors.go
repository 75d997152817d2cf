package voxplain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const domain = "voxplain"

const connectionLost = "CONNECTION_LOST"

// Kinds of faults, for errors.Is.
var (
	ErrInvalidSpec        = errors.New("the spec or a tensor is wrong")
	ErrChecksumMismatch   = errors.New("bytes were changed on their way")
	ErrModelNotFound      = errors.New("no such model or version")
	ErrUnsupportedByModel = errors.New("this model cannot do what was asked")
	ErrLimitExceeded      = errors.New("a limit of the server, or its queue is full")
	ErrCheckpointRefused  = errors.New("the checkpoint does not belong to this request")
	ErrDeadlinePassed     = errors.New("the time given has passed")
	ErrCancelled          = errors.New("the caller cancelled")
	ErrServerUnavailable  = errors.New("shutting down, workers lost, or no connection; trying again helps")
	ErrUnauthenticated    = errors.New("no token, or not one that the server knows")
	ErrPermissionDenied   = errors.New("this caller may not do that")
	ErrInternalFault      = errors.New("a fault of the server")
)

var kinds = map[codes.Code]error{
	codes.InvalidArgument:    ErrInvalidSpec,
	codes.DataLoss:           ErrChecksumMismatch,
	codes.NotFound:           ErrModelNotFound,
	codes.FailedPrecondition: ErrUnsupportedByModel,
	codes.ResourceExhausted:  ErrLimitExceeded,
	codes.Aborted:            ErrCheckpointRefused,
	codes.DeadlineExceeded:   ErrDeadlinePassed,
	codes.Canceled:           ErrCancelled,
	codes.Unavailable:        ErrServerUnavailable,
	codes.Unauthenticated:    ErrUnauthenticated,
	codes.PermissionDenied:   ErrPermissionDenied,
	codes.Internal:           ErrInternalFault,
}

// Error is a fault of a call: errors.As gives its fields, errors.Is its kind.
type Error struct {
	// Code of gRPC.
	Code codes.Code
	// Reason is an UPPER_SNAKE_CASE code that programs may switch on.
	Reason string
	// Message is for people.
	Message string
	// Field is the path of the field at fault, for example tensors[2].shape; empty where no field is.
	Field string
	// RetryAfter is when trying again may help; nil where it does not.
	RetryAfter *time.Duration

	cause error
}

func (e *Error) Error() string {
	if e.Field != "" {
		return fmt.Sprintf("%s (%s): %s", e.Reason, e.Field, e.Message)
	}
	return fmt.Sprintf("%s: %s", e.Reason, e.Message)
}

// Is tells whether target is the kind of the fault, for example ErrModelNotFound.
func (e *Error) Is(target error) bool {
	kind, known := kinds[e.Code]
	return known && target == kind
}

// Unwrap gives what the call itself returned.
func (e *Error) Unwrap() error { return e.cause }

// translate makes the typed error for whatever a call returned.
func translate(ctx context.Context, err error) *Error {
	var typed *Error
	if errors.As(err, &typed) {
		return typed
	}
	told := status.Convert(err)
	info, field, delay := details(told)
	if info != nil {
		return &Error{Code: told.Code(), Reason: info.Reason, Message: told.Message(), Field: field, RetryAfter: delay, cause: err}
	}
	switch ctx.Err() {
	case context.Canceled:
		return &Error{Code: codes.Canceled, Reason: "CANCELLED", Message: "the explanation was cancelled", cause: ctx.Err()}
	case context.DeadlineExceeded:
		message := "the time given to the explanation has passed"
		return &Error{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Message: message, cause: ctx.Err()}
	}
	switch told.Code() {
	case codes.Unimplemented:
		message := "the server does not offer this call: check its address and version"
		return &Error{Code: codes.Internal, Reason: "NOT_A_VOXPLAIN_SERVER", Message: message, cause: err}
	case codes.Unavailable, codes.Internal, codes.Unknown, codes.Canceled, codes.Aborted:
		// No server of ours says these without ErrorInfo: they come from the network, in a code that depends on who reset the stream.
		message := "the server cannot be reached: check its address and that it is running"
		return &Error{Code: codes.Unavailable, Reason: connectionLost, Message: message, RetryAfter: delay, cause: err}
	}
	reason := strings.ToUpper(snake(told.Code().String()))
	return &Error{Code: told.Code(), Reason: reason, Message: told.Message(), RetryAfter: delay, cause: err}
}

func details(told *status.Status) (info *errdetails.ErrorInfo, field string, delay *time.Duration) {
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == domain {
				info = detail
			}
		case *errdetails.BadRequest:
			fields := make([]string, 0, len(detail.FieldViolations))
			for _, violation := range detail.FieldViolations {
				fields = append(fields, violation.Field)
			}
			field = strings.Join(fields, ", ")
		case *errdetails.RetryInfo:
			wait := detail.RetryDelay.AsDuration()
			delay = &wait
		}
	}
	return info, field, delay
}

func snake(camel string) string {
	var out strings.Builder
	for place, letter := range camel {
		if place > 0 && letter >= 'A' && letter <= 'Z' {
			out.WriteByte('_')
		}
		out.WriteRune(letter)
	}
	return out.String()
}

func refusal(reason, message, field string) *Error {
	return &Error{Code: codes.InvalidArgument, Reason: reason, Message: message, Field: field}
}
