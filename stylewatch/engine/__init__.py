"""The method, and photos as arrays and back. No files but weights, no console, no config.

How a picture is painted:

transfer        all of it: scale after scale, from coarse to fine
progress        how far that is, and when it is enough
features        VGG19, and the built-in network
convolution     its convolutions, each in the fastest way
losses          content, style and total variation
objective       the whole loss, compiled, and its gradient
tiles           the same for pictures that do not fit into memory
optimizers      how the loss is lowered
curvature       L-BFGS: what its steps have shown of the loss
preconditioner  L-BFGS: what it takes for granted beyond that
subject         where in a photo there is something to see
colours         what becomes of the photo's colours
backend         TensorFlow, JAX or PyTorch, and the device
machine         memory and processor

How it is read and written:

images          a photo's bytes become pixels
results         pixels become a result's bytes
exif            what of a photo's EXIF goes into its result
profiles        what a photo's colours mean, and the results'
hdr             what a usual screen shows of HDR
chunks          what a PNG is made of
captions        what a person has written about a photo
headers         what rules ask about a photo
endings         whether a photo is there to its last byte
glance          for how long these two may read
sizes           pictures at other sizes
sheets          several pictures on one sheet
"""
