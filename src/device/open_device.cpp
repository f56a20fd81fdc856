#include "device/open_device.h"

#include "device/host_use.h"

#include <unistd.h>

namespace uext4 {

Result<std::unique_ptr<FileDevice>> open_device(const std::string& image, const FileDeviceOptions& options,
                                                FindPartition find) {
    const ImageName parsed = parse_image_name(image);
    FileDeviceOptions view = options;
    if (parsed.partition) {
        const int fd = TRY(open_image(parsed.path, false));
        const Result<Partition> partition = find(fd, *parsed.partition, parsed.path);
        close(fd);
        if (!partition) return fail(partition.error());
        if (options.offset > partition->size || options.length > partition->size - options.offset)
            return fail(EINVAL, "{}: a view of {} bytes at {} is outside of the partition's {} bytes", image,
                        options.length, options.offset, partition->size);
        view.offset = partition->offset + options.offset;
        view.length = options.length != 0 ? options.length : partition->size - options.offset;
        if (view.length == 0) return fail(EINVAL, "{}: an empty view", image);
    }
    if (view.name.empty()) view.name = image;
    return FileDevice::open(parsed.path, view);
}

}  // namespace uext4
