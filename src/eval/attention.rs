//! The class token's attention over pictures.

use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::config::RunConfig;
use crate::graph::{DType, Shape};
use crate::pjrt::{Arg, Buffer, Client, CompileCache, CompileOptions, Executable, Program};
use crate::programs::attention;

/// The attention program for one picture at a time, on the first device.
pub struct Attention {
    client: Arc<Client>,
    executable: Executable,
    variables: Vec<(String, Shape)>,
    px: usize,
}

impl Attention {
    /// Builds and compiles it.
    ///
    /// # Errors
    /// For a backbone without a class token; the compiler's.
    pub fn new(
        client: &Arc<Client>,
        config: &RunConfig,
        cache: Option<&CompileCache>,
    ) -> Result<Self> {
        let mut config = config.clone();
        config.mesh.data = 1;
        let program = attention::build(&config, 1)?;
        let text = program.text();
        let options = CompileOptions::default();
        let (executable, _) = client.compile_cached(&Program { text: &text }, &options, cache)?;
        let mut inputs: Vec<(String, Shape)> = program
            .graph
            .inputs
            .iter()
            .map(|input| (input.name.clone(), input.value.shape))
            .collect();
        inputs.pop();
        Ok(Self {
            client: client.clone(),
            executable,
            variables: inputs,
            px: config.model.image_size,
        })
    }

    /// Names and shapes of the variables that [`Attention::of`] needs.
    pub fn variables(&self) -> &[(String, Shape)] {
        &self.variables
    }

    /// The weights of a picture of S x S x 3 bytes, f32 [heads, T] as
    /// [`attention::build`] says. `backbone` are the variables in their order.
    ///
    /// # Errors
    /// If the picture has another size, or the device fails.
    pub fn of(&self, backbone: &[(String, Buffer)], picture: &[u8]) -> Result<Vec<f32>> {
        ensure!(
            picture.len() == 3 * self.px * self.px,
            "a picture of another size"
        );
        let device = &self.client.devices()[0];
        let dims = [1, self.px, self.px, 3];
        let picture = self
            .client
            .buffer_from_host(picture, DType::U8, &dims, device)?;
        let mut arguments: Vec<Arg> = backbone.iter().map(|(_, b)| Arg::Borrow(b)).collect();
        arguments.push(Arg::Borrow(&picture));
        let run = self.executable.execute(vec![arguments])?;
        let bytes = run.buffers[0][0].to_host()?;
        let (words, _) = bytes.as_chunks::<4>();
        Ok(words.iter().map(|w| f32::from_le_bytes(*w)).collect())
    }
}
