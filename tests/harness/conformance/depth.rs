//! Stacks of many layers. `THINSTORE_CONFORMANCE_LAYERS=24` for a lower highest one, where all takes long.

use super::{Bench, Seen};
use crate::{LayoutImage, TarWriter};

/// An image of so many layers, each with a file of its own; every third takes away that of the one before.
fn image(layers: u32) -> LayoutImage {
    let layer = |number: u32| {
        let mut tar = TarWriter::new()
            .file("changed", format!("{number}").as_bytes())
            .file(&format!("file-{number}"), b"here");
        if number % 3 == 2 {
            tar = tar.file(&format!(".wh.file-{}", number - 1), b"");
        }
        tar.finish()
    };
    (0..layers).fold(LayoutImage::new(), |image, number| image.layer(layer(number)))
}

/// Images of 1, 10 and 128 layers, which begin with the same ones; containers see the whole stack and can
/// change what lies at its bottom.
pub fn deep_stacks(bench: &Bench) -> Seen {
    let highest = std::env::var("THINSTORE_CONFORMANCE_LAYERS").ok();
    let highest = highest.map_or(128, |layers| layers.parse().expect("a number of layers"));
    for layers in [1, 10, highest] {
        let name = format!("deep{layers}");
        bench.import(&image(layers), &name);
        assert_eq!(bench.names("layers").len(), usize::try_from(layers).expect("a count"));
        let tree = bench.tree_of_image(&name);
        // one is in all layers, and every third layer takes another away
        let files = 1 + layers - layers / 3;
        let files = usize::try_from(files).expect("a count");
        assert_eq!(tree.file_count(), files, "of {layers} layers");
        bench.ok(&["snapshot", &name, "web"]);
        bench.with_mounted("web", |root| {
            let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("read");
            assert_eq!(read("changed"), (layers - 1).to_string());
            std::fs::write(root.join("file-0"), "changed").expect("write");
            assert_eq!(read("file-0"), "changed");
        });
        assert_eq!(bench.ok(&["diff", "web"]), "C /file-0\n");
        bench.ok(&["commit", "web", "above"]);
        bench.ok(&["rm", "web"]);
        bench.ok(&["rmi", "above"]);
    }
    Ok(())
}
