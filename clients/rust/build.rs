//! Makes the code of the contracts, with a protoc of its own: nothing but cargo is needed.

use std::{env, error::Error, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let contracts = ["proto/weft/echo/v1/echo.proto", "proto/weft/v1/registry.proto"];
    if env::var_os("PROTOC").is_none() {
        env::set_var("PROTOC", protoc_bin_vendored::protoc_bin_path()?);
    }
    for folder in ["proto/weft/echo", "proto/weft/v1", "third_party"] {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }
    tonic_prost_build::configure().build_server(false).compile_protos(
        &contracts.map(|name| root.join(name)),
        &[root.join("proto"), root.join("third_party/googleapis")],
    )?;
    Ok(())
}
