// Questions of the rooms to the server. Knows nothing of the page.
import { ask, read } from "./api.js";

const name = encodeURIComponent;
const path = (query, said) => `/api/queries/${name(query)}?${new URLSearchParams(said)}`;

export const roomApi = {
  queries: (signal) => read("/api/queries", signal),
  query: (query, said, signal) => read(path(query, said), signal),
  csv: (query, said) => path(query, { ...said, format: "csv" }),
  sql: async (sql, signal, format = "json") => {
    const answer = await ask("/api/sql", { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ sql, format }) });
    return format === "csv" ? answer.blob() : answer.json();
  },
  projects: (signal) => read("/api/supervision/projects", signal),
  project: (id, signal) => read(`/api/supervision/projects/${name(id)}`, signal),
  systems: (span, signal) => read(`/api/supervision/systems?span=${span}`, signal),
  services: (span, signal) => read(`/api/supervision/services?span=${span}`, signal),
};
