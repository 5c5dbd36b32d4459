// Reports usage to Weir: a thin client of POST /v1/usage, without dependencies.
//
//   const weir = new Client("http://127.0.0.1:8080", "weir_usage_…");
//   await weir.report({ tenant: "acme", tokens: 1200, model: "gpt-4o" });  // it was used: recorded in any case
//   await weir.take({ tenant: "acme", tokens: 500 });                      // it will be used: taken first
//
// Each report has a key that is kept when the call is repeated, so that it counts once. Give a key of
// your own (a job's id) where your program may be started again.

/** What was used, or is about to be. */
export interface Usage {
  tenant: string;
  tokens?: number;
  requests?: number;
  /** `default`, or one that the tenant's plan has a price for. */
  meter?: string;
  model?: string;
  /** Names the report; a random UUID without it. */
  key?: string;
}

/** Where a limit stands. */
export interface Limit {
  name: string;
  unit: "tokens" | "requests";
  capacity: number;
  remaining: number;
  reset_s: number;
}

/** What is recorded. A repeat is answered the same. */
export interface Reported {
  tenant: string;
  meter: string;
  model: string;
  tokens: number;
  requests: number;
  /** The minute in which it counts, RFC 3339. */
  minute: string;
  /** Where the limits stood after `take`. */
  limits: Limit[];
}

export interface Options {
  /** For one call, in ms. */
  timeoutMs?: number;
  /** How often a call is repeated that fails for the moment: no answer, or 5xx. */
  retries?: number;
  /** A refusal for a limit is repeated while the wait is at most this, in ms; by default it is thrown at once. */
  maxWaitMs?: number;
}

/** The call was not carried out. */
export class WeirError extends Error {
  /** Repeat the report with this key, so that it counts once. */
  readonly key: string;
  /** Undefined where there was no answer. */
  readonly status?: number;
  /** The body of the answer (application/problem+json), empty without one. */
  readonly problem: Record<string, unknown>;

  constructor(message: string, key: string, status?: number, problem: Record<string, unknown> = {}) {
    super(message);
    this.name = new.target.name;
    this.key = key;
    this.status = status;
    this.problem = problem;
  }
}

/** The tenant has not that much, and nothing was taken. */
export class LimitExceeded extends WeirError {
  /** Until it may succeed; undefined where it never can. */
  retryAfterMs?: number;

  /** The names of the limits in the way. */
  get violated(): string[] {
    const names = this.problem["violated-policies"];
    return Array.isArray(names) ? names.map(String) : [];
  }
}

const LONGEST_PAUSE_MS = 30_000;

/** `token` is an access token with the role `usage`. */
export class Client {
  private readonly url: string;
  private readonly token: string;
  private readonly options: Required<Options>;

  constructor(baseUrl: string, token: string, options: Options = {}) {
    this.url = baseUrl.replace(/\/+$/, "") + "/v1/usage";
    this.token = token;
    this.options = { timeoutMs: 10_000, retries: 5, maxWaitMs: 0, ...options };
  }

  /** Records what was used, in any case. `time` is when, where that is not now. */
  report(usage: Usage & { time?: Date }): Promise<Reported> {
    const { key, time, ...rest } = usage;
    return this.post({ ...rest, check: false, time: time?.toISOString() }, key);
  }

  /** Takes what is about to be used, all of it or nothing; throws LimitExceeded where it is not there. */
  take(usage: Usage): Promise<Reported> {
    const { key, ...rest } = usage;
    return this.post({ ...rest, check: true }, key);
  }

  private async post(body: object, given?: string): Promise<Reported> {
    const key = given ?? crypto.randomUUID();
    for (let attempt = 0; ; attempt += 1) {
      const { answer, error, waitMs } = await this.once(JSON.stringify(body), key);
      if (error === undefined) return answer as Reported;
      const isLimit = error instanceof LimitExceeded;
      const isFinal = isLimit ? waitMs === undefined : error.status !== undefined && error.status < 500;
      if (isFinal || attempt >= this.options.retries) throw error;
      if (isLimit && (waitMs ?? 0) > this.options.maxWaitMs) throw error;
      const growingMs = Math.min(100 * 2 ** attempt, 5_000) * (0.5 + Math.random() / 2);
      const pauseMs = isLimit ? (waitMs ?? 0) : Math.min(waitMs ?? growingMs, LONGEST_PAUSE_MS);
      await new Promise((resume) => setTimeout(resume, pauseMs));
    }
  }

  private async once(
    body: string,
    key: string,
  ): Promise<{ answer?: unknown; error?: WeirError; waitMs?: number }> {
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.url, {
        method: "POST",
        headers: {
          authorization: `Bearer ${this.token}`,
          "content-type": "application/json",
          "idempotency-key": key,
        },
        body,
        signal: AbortSignal.timeout(this.options.timeoutMs),
      });
      text = await response.text();
    } catch (cause) {
      return { error: new WeirError(`no answer: ${String(cause)}`, key) };
    }
    const parsed = objectIn(text);
    if (response.ok && parsed !== undefined) return { answer: parsed };
    const problem = parsed ?? {};
    const message = typeof problem.detail === "string" ? problem.detail : response.statusText;
    const seconds = Number.parseFloat(response.headers.get("retry-after") ?? "");
    const waitMs = Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : undefined;
    if (response.status === 429) {
      const error = new LimitExceeded(message, key, 429, problem);
      error.retryAfterMs = waitMs;
      return { error, waitMs };
    }
    // A body that broke off is as good as none.
    const status = response.ok ? undefined : response.status;
    return { error: new WeirError(message, key, status, problem), waitMs };
  }
}

function objectIn(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
