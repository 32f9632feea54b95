// Requests that come back to the function when they are due.

import * as api from "./api";
import * as host from "./host";
import { Code, Failure, Result } from "./errors";

/**
 * A component of the jobs capability. A job, which needs schedule or due, comes to the handler that handleJob registered for
 * its name.
 */
export class JobStore {
  constructor(private component: string) {}

  /** Keeps a job. AlreadyExists: there is one of that name. */
  schedule(job: api.Job): Failure | null {
    return this.keep(job, false);
  }

  /** Keeps a job in place of the one of that name, if there is one. */
  replace(job: api.Job): Failure | null {
    return this.keep(job, true);
  }

  private keep(job: api.Job, overwrite: bool): Failure | null {
    const q = new api.JobsScheduleRequest();
    q.component = this.component;
    q.jobs.push(job);
    q.overwrite = overwrite;
    return host.call<api.Empty>("jobs.Schedule", q).failure;
  }

  /** A job as it was scheduled. NotFound: there is none of that name, or it is done. */
  get(name: string): Result<api.Job> {
    const q = new api.JobsGetRequest();
    q.component = this.component;
    q.names.push(name);
    const r = host.call<api.JobsGetResponse>("jobs.Get", q);
    if (!r.ok) return Result.failed<api.Job>(r.failure!);
    if (r.value.jobs.length == 0) return Result.failed<api.Job>(new Failure(Code.NotFound, `job "${name}" is not there`));
    return Result.of<api.Job>(r.value.jobs[0]);
  }

  /** Forgets a job. NotFound: there is none of that name. */
  delete(name: string): Failure | null {
    const q = new api.JobsDeleteRequest();
    q.component = this.component;
    q.name = name;
    return host.call<api.Empty>("jobs.Delete", q).failure;
  }
}

/** The component of that name. */
export function jobs(component: string = ""): JobStore {
  return new JobStore(component);
}
