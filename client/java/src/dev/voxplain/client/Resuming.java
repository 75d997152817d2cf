package dev.voxplain.client;

import java.time.Duration;

/**
 * The call broke or must wait; it will be made again by itself.
 *
 * @param attempt counts from 1 since the last advance
 * @param fromCheckpoint false: the compute starts over
 */
public record Resuming(VoxplainException fault, int attempt, Duration delay, boolean fromCheckpoint) {}
