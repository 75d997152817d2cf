package voxplain

import (
	"hash/crc32"

	pb "voxplain.dev/voxplain/v1"
)

// MaxChunkBytes is the most bytes of data in one chunk.
const MaxChunkBytes = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C (Castagnoli) of bytes.
func Checksum(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// Chunker hands the chunks of an upload to send, and ends when send returns an error. Chunks of one tensor come in order; those of
// different tensors may interleave.
type Chunker func(payloads []Payload, send func(*pb.TensorChunk) error) error

// InOrder sends one tensor after another, in chunks of 1 MiB.
func InOrder(payloads []Payload, send func(*pb.TensorChunk) error) error {
	for _, payload := range payloads {
		for _, chunk := range ChunksOf(payload, MaxChunkBytes) {
			sum := Checksum(chunk.Data)
			chunk.Crc32C = &sum
			if err := send(chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// ChunksOf cuts one tensor into chunks without checksums. Their data are views, not copies.
func ChunksOf(payload Payload, chunkBytes int) []*pb.TensorChunk {
	var chunks []*pb.TensorChunk
	for offset := 0; offset < len(payload.Bytes); offset += chunkBytes {
		end := offset + chunkBytes
		if end > len(payload.Bytes) {
			end = len(payload.Bytes)
		}
		data := payload.Bytes[offset:end]
		chunks = append(chunks, &pb.TensorChunk{TensorId: payload.Header.Id, OffsetBytes: uint64(offset), Data: data})
	}
	return chunks
}
