/** How much one client may ask in which time. */

/** A bucket of tokens that fills at a steady rate: bursts up to its size, then the rate. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #size: number;
  #tokens: number;
  #at: number;

  constructor(perSecond: number, size: number, now = performance.now()) {
    this.#perSecond = perSecond;
    this.#size = size;
    this.#tokens = size;
    this.#at = now;
  }

  /** Milliseconds until it may go on; 0 when the token was there. The token is taken in either case. */
  take(now = performance.now()): number {
    this.#tokens = Math.min(this.#size, this.#tokens + ((now - this.#at) / 1000) * this.#perSecond);
    this.#at = now;
    this.#tokens -= 1;
    return this.#tokens >= 0 ? 0 : Math.ceil((-this.#tokens / this.#perSecond) * 1000);
  }

  /** Takes one only where there is one: who is refused is not punished for asking. */
  tryTake(now = performance.now()): boolean {
    if (this.take(now) === 0) return true;
    this.#tokens += 1;
    return false;
  }
}

/** A bucket for each sender; those that were quiet longest are forgotten first. */
export class SenderLimits {
  readonly #buckets = new Map<string, TokenBucket>();
  readonly #newBucket: () => TokenBucket;

  constructor(newBucket: () => TokenBucket) {
    this.#newBucket = newBucket;
  }

  tryTake(sender: string): boolean {
    const bucket = this.#buckets.get(sender) ?? this.#newBucket();
    this.#buckets.delete(sender);
    this.#buckets.set(sender, bucket);
    if (this.#buckets.size > mostSenders) this.#buckets.delete(this.#buckets.keys().next().value as string);
    return bucket.tryTake();
  }
}

const mostSenders = 1024;

export const limits = {
  /** Requests without a secret, from one address: a person who mistypes, not a program that guesses. */
  strangers: () => new TokenBucket(20, 60),
  /** Requests with the secret: a gallery of posters at once. */
  requests: () => new TokenBucket(500, 2000),
  /** Messages of one socket; beyond, the socket is read more slowly. */
  messages: () => new TokenBucket(500, 1000),
  /** Calls of one socket that have not been answered; beyond, the socket is not read. */
  openCalls: 128,
  sockets: 64,
  connections: 512,
  /** Waiting to be sent over one socket; a reader as slow as this is cut off. */
  pendingBytes: 64 * 1024 * 1024,
} as const;
