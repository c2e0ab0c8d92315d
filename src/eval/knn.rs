use crate::config::RunConfig;
use crate::data::Dataset;
use crate::pjrt::{Buffer, Client, CompileCache};
use anyhow::Result;
use std::sync::Arc;
pub struct KnnResult {
    pub top1: f64,
    pub k: usize,
    pub bank: usize,
    pub queries: usize,
}
pub struct HeldOut;
impl HeldOut {
    pub fn new(
        _: &Arc<Client>,
        _: &RunConfig,
        _: &Arc<Dataset>,
        _: &Arc<Dataset>,
        _: Option<&CompileCache>,
    ) -> Result<Self> {
        Ok(HeldOut)
    }
    pub fn evaluate(&self, b: &[(&str, &Buffer)]) -> Result<KnnResult> {
        Ok(KnnResult {
            top1: b.len() as f64,
            k: 0,
            bank: 0,
            queries: 0,
        })
    }
}
