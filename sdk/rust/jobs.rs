//! Requests that come back to the function when they are due.

use super::error::{Code, Error, Result};
use super::{api, host};

pub use super::api::Job;

/// JobStore is a component of the jobs capability. A job, which needs schedule or due, comes to the handler that
/// handle_job registered for its name: Job { name: "report".to_string(), due: "90s".to_string(), ..Job::default() }.
#[derive(Clone, Debug)]
pub struct JobStore(String);

/// The component of that name; "" is the default one.
pub fn jobs(component: &str) -> JobStore {
    JobStore(component.to_string())
}

impl JobStore {
    /// Keeps a job. AlreadyExists: there is one of that name.
    pub fn schedule(&self, job: Job) -> Result<()> {
        self.keep(job, false)
    }

    /// Keeps a job in place of the one of that name, if there is one.
    pub fn replace(&self, job: Job) -> Result<()> {
        self.keep(job, true)
    }

    fn keep(&self, job: Job, overwrite: bool) -> Result<()> {
        let request = api::JobsScheduleRequest { component: self.0.clone(), jobs: vec![job], overwrite };
        host::invoke::<api::Empty>("jobs.Schedule", &request).map(|_| ())
    }

    /// A job as it was scheduled. NotFound: there is none of that name, or it is done.
    pub fn get(&self, name: &str) -> Result<Job> {
        let request = api::JobsGetRequest { component: self.0.clone(), names: vec![name.to_string()] };
        let mut r: api::JobsGetResponse = host::invoke("jobs.Get", &request)?;
        r.jobs.pop().ok_or_else(|| Error::new(Code::NotFound, format!("job {name:?} is not there")))
    }

    /// Forgets a job. NotFound: there is none of that name.
    pub fn delete(&self, name: &str) -> Result<()> {
        let request = api::JobsDeleteRequest { component: self.0.clone(), name: name.to_string() };
        host::invoke::<api::Empty>("jobs.Delete", &request).map(|_| ())
    }
}
