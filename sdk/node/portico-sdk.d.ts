import type { IncomingMessage, Server, ServerResponse } from "node:http";

/** What a service says of itself when it registers (docs/plugins.md). Unknown fields are refused. */
export interface ServiceConfig {
  name: string;
  version: string;
  display_name?: string;
  /** Address under which the gateway reaches this instance; "auto" is the address that it registers from. Default 127.0.0.1. */
  host?: string;
  /** 0 or nothing: any free port. The environment's PORT wins. */
  port?: number;
  base_path?: string;
  endpoints?: Endpoint[];
  metadata?: Record<string, string>;
  tags?: string[];
  health_check_url?: string;
  id?: string;
  tenant?: string;
  protocol?: "http/1.1" | "h2c" | "https" | "h2" | "unix";
  instance_key?: string;
  zone?: string;
  weight?: number;
  heartbeat_s?: number;
  default_access?: "authenticated" | "public";
  forward_credentials?: boolean;
  identity_statement?: boolean;
  permissions?: unknown[];
  settings_schema?: unknown;
  events?: unknown[];
  openapi_url?: string;
  console?: unknown;
}

export interface Endpoint {
  path: string;
  method?: string;
  description?: string;
  required_roles?: string[];
  required_permissions?: string[];
  is_public?: boolean;
  rate_limit?: { per_s: number; burst?: number };
  timeout_ms?: number;
  cache?: { ttl_s: number; per_user?: boolean; stale_while_revalidate_s?: number };
}

/** Who calls, as the gateway established it. What is undefined was empty. */
export interface Identity {
  readonly user?: string;
  readonly tenant?: string;
  readonly session?: string;
  readonly roles: readonly string[];
  readonly scopes: readonly string[];
  /** 0 for nobody, 1 one factor, 2 two. */
  readonly aal: number;
  readonly requestId: string;
  /** On the clock of performance.now(). */
  readonly deadline?: number;
}

export interface Fault {
  field: string;
  code: string;
  message: string;
}

export class Problem extends Error {
  constructor(status: number, code: string, detail?: string, more?: { errors?: Fault[]; requestId?: string });
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly errors: Fault[];
  readonly requestId?: string;
  send(res: ServerResponse): void;
  static read(status: number, text: string): Problem;
}

export class Refused extends Error {}

export type Values = Record<"user" | "tenant" | "session" | "roles" | "scopes" | "aal" | "request-id", string>;
export const ORDER: (keyof Values)[];
export function signatureBase(timestampMs: number | string, method: string, target: string, values: Values): string;
export function sign(secret: string, base: string): string;
export function current(): Identity | undefined;
export function sendJson(res: ServerResponse, status: number, doc: unknown, type?: string): void;

export class Verifier {
  constructor(secrets: string | (string | undefined)[] | undefined, options?: { memory?: number });
  readonly secrets: string[];
  readonly size: number;
  rotate(secret: string | undefined): void;
  verify(method: string, target: string, headers: string[], nowMs?: number): Identity;
}

export interface Answer<T = unknown> {
  status: number;
  headers: Headers;
  body: T;
}

export type IdentifiedRequest = IncomingMessage & { identity?: Identity };

export class Plugin {
  constructor(config: ServiceConfig, options?: {
    url?: string;
    token?: string;
    secret?: string;
    /** How long to serve on after deregistering, default 1000. */
    lingerMs?: number;
    /** How long to wait for what is in flight, default 30000. */
    drainMs?: number;
    log?: (level: "info" | "warn" | "error", text: string) => void;
  });
  readonly name: string;
  readonly config: ServiceConfig & { port: number };
  readonly url: string;
  readonly id?: string;
  readonly state: string;
  readonly identity: { jwks_url?: string; issuer?: string };
  /** Where services call each other, once registered. */
  readonly internalUrl?: string;
  readonly verifier: Verifier;
  handler(app: (req: IdentifiedRequest, res: ServerResponse) => unknown): (req: IncomingMessage, res: ServerResponse) => Promise<void>;
  identify(req: IncomingMessage): Promise<Identity>;
  serve(server: Server, bind?: string): Promise<void>;
  start(): void;
  drain(server?: Server): Promise<boolean>;
  call<T = any>(service: string, path?: string, options?: {
    method?: string;
    body?: unknown;
    headers?: Record<string, string>;
    timeoutMs?: number;
  }): Promise<Answer<T>>;
  verifyStatement(jwt: string, options?: { typ?: string; audience?: string }): Promise<Record<string, any>>;
}
