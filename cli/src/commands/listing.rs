//! `images`, `layers` and `ls`

use thinstore_store::Access;
use thinstore_store::size::format_size;
use thinstore_store::types::{ContainerSummary, ImageSummary, LayerSummary};

use crate::context::Context;
use crate::failure::Failure;
use crate::table::table;
use crate::text::{age, printable, short_id};

pub fn images(context: &Context) -> Result<(), Failure> {
    let images = context.with_store(Access::Read, |store| Ok(store.images()?))?;
    context.output.list(&images, |image| &image.name, image_table)
}

pub fn layers(context: &Context) -> Result<(), Failure> {
    let layers = context.with_store(Access::Read, |store| Ok(store.layers()?))?;
    context.output.list(&layers, |layer| &layer.name, layer_table)
}

pub fn containers(context: &Context) -> Result<(), Failure> {
    let containers = context.with_store(Access::Read, |store| Ok(store.containers()?))?;
    context.output.list(&containers, |container| &container.name, container_table)
}

fn image_table(images: &[ImageSummary]) -> String {
    table(
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", ">LAYERS", ">SIZE", ">CONTAINERS"],
        images.iter().map(|image| {
            [
                printable(&image.repository),
                printable(&image.tag),
                short_id(&image.id),
                age(image.created_unix_ns),
                image.layers.to_string(),
                format_size(image.size_bytes),
                image.containers.len().to_string(),
            ]
        }),
    )
}

/// `sha256:` and the first digits: enough to tell them apart and to name them.
fn short_layer(name: &str) -> String {
    match name.split_once(':') {
        Some((scheme, hex)) => format!("{scheme}:{}", short_id(hex)),
        None => name.to_owned(),
    }
}

fn layer_table(layers: &[LayerSummary]) -> String {
    table(
        ["LAYER", "PARENT", ">DEPTH", ">OWN", ">DEVICE", "CREATED", "IMAGES"],
        layers.iter().map(|layer| {
            [
                short_layer(&layer.name),
                layer.parent.as_deref().map(short_layer).unwrap_or_default(),
                layer.depth.to_string(),
                format_size(layer.own_bytes),
                format_size(layer.size_bytes),
                age(layer.created_unix_ns),
                printable(&layer.images.join(", ")),
            ]
        }),
    )
}

fn container_table(containers: &[ContainerSummary]) -> String {
    table(
        ["NAME", "IMAGE", "STATE", ">SIZE", ">OWN", "CREATED", "DEVICE", "MOUNTED ON"],
        containers.iter().map(|container| {
            let read_only = if container.read_only { " (read-only)" } else { "" };
            let mounted = container.mount_point.as_deref().unwrap_or_default();
            [
                printable(&container.name),
                printable(container.image.as_deref().unwrap_or_default()),
                container.state.name().to_owned(),
                format_size(container.size_bytes),
                format_size(container.own_bytes),
                age(container.created_unix_ns),
                container.device.clone().unwrap_or_default(),
                format!("{}{read_only}", printable(mounted)),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinstore_store::time::now_unix_ns;
    use thinstore_store::types::ContainerState;

    #[test]
    fn images_are_listed_as_docker_does() {
        let image = ImageSummary {
            name: "debian:12".to_owned(),
            repository: "debian".to_owned(),
            tag: "12".to_owned(),
            id: format!("sha256:{}", "ab".repeat(32)),
            created: String::new(),
            created_unix_ns: now_unix_ns() - 7_200_500_000_000,
            layers: 4,
            top_layer: String::new(),
            size_bytes: 123 << 20,
            containers: vec!["a".to_owned()],
        };
        assert_eq!(
            image_table(&[image]),
            "REPOSITORY   TAG   IMAGE ID       CREATED       LAYERS      SIZE   CONTAINERS\n\
             debian       12    abababababab   2 hours ago        4   123 MiB            1\n"
        );
    }

    #[test]
    fn containers_show_where_they_are() {
        let mut container = ContainerSummary {
            name: "web".to_owned(),
            id: String::new(),
            image: Some("debian:12".to_owned()),
            state: ContainerState::Mounted,
            created: String::new(),
            created_unix_ns: now_unix_ns(),
            size_bytes: 10 << 30,
            own_bytes: 4096,
            device: Some("/dev/loop3".to_owned()),
            mount_point: Some("/mnt".to_owned()),
            read_only: true,
        };
        let mounted = container.clone();
        container.name = "idle".to_owned();
        container.state = ContainerState::Created;
        (container.device, container.mount_point, container.read_only) = (None, None, false);
        assert_eq!(
            container_table(&[mounted, container]),
            "NAME   IMAGE       STATE       SIZE     OWN   CREATED    DEVICE       MOUNTED ON\n\
             web    debian:12   mounted   10 GiB   4 KiB   just now   /dev/loop3   /mnt (read-only)\n\
             idle   debian:12   created   10 GiB   4 KiB   just now\n"
        );
    }

    #[test]
    fn layers_show_their_parents() {
        let layer = LayerSummary {
            name: format!("sha256:{}", "12".repeat(32)),
            diff_id: None,
            parent: Some(format!("thin:{}", "34".repeat(32))),
            depth: 1,
            own_bytes: 1536,
            size_bytes: 1 << 30,
            created: String::new(),
            created_unix_ns: now_unix_ns(),
            images: vec!["a:latest".to_owned(), "b:latest".to_owned()],
        };
        assert_eq!(
            layer_table(&[layer]),
            "LAYER                 PARENT              DEPTH       OWN   DEVICE   CREATED    IMAGES\n\
             sha256:121212121212   thin:343434343434       1   1.5 KiB    1 GiB   just now   a:latest, b:latest\n"
        );
    }
}
