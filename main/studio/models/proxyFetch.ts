/** Requests through the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name, as every download tool does. */
import { EnvHttpProxyAgent, fetch as undiciFetch } from 'undici';

/** A `fetch` for downloads; the variables are read once, here. */
export function fetchThroughProxy(): typeof fetch {
  const dispatcher = new EnvHttpProxyAgent();
  return ((url: string, init?: RequestInit) =>
    undiciFetch(url, { ...init, dispatcher } as never)) as unknown as typeof fetch;
}
